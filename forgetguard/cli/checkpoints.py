"""Checkpoints on the command line, `base=CHECKPOINT`, and how they are loaded; as for pytest."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict

from forgetguard.checkpoints.options import DTYPES, LoadOptions
from forgetguard.errors import SpecificationError

CHECKPOINT = "hub id, directory, peft adapter directory, or tiny:base, tiny:sft, tiny:rl, tiny:lora"


def add_checkpoints(parser: ArgumentParser, roles: Sequence[str]) -> None:
    """Let the parser take `role=CHECKPOINT` tokens, anywhere among the options."""
    form = " ".join(f"{role}=CHECKPOINT" for role in roles)
    parser.add_argument("tokens", nargs="*", metavar=form, help=CHECKPOINT)


def read_checkpoints(
    tokens: Sequence[str], required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, str]:
    """The checkpoints by role, as they were written.

    Raises:
        SpecificationError: a token is no KEY=VALUE of these roles, a value is empty, a role is
            given twice with different values, or a required one is missing.
    """
    roles = (*required, *optional)
    found: dict[str, str] = {}
    for token in tokens:
        key, equals, value = token.partition("=")
        if not equals or key not in roles:
            what = f"unknown key {key!r} in {token!r}" if equals else f"{token!r} is no KEY=VALUE"
            raise SpecificationError(f"{what}; the keys are {', '.join(roles)}")
        if not value.strip():
            raise SpecificationError(f"{key}= is empty (an unset variable?); give a checkpoint")
        if found.setdefault(key, value) != value:
            raise SpecificationError(
                f"{key} was given twice, as {found[key]!r} and as {value!r}; give it once"
            )
    missing = [role for role in required if role not in found]
    if missing:
        given = " ".join(f"{role}={value}" for role, value in found.items())
        form = " ".join(f"{role}=CHECKPOINT" for role in missing)
        raise SpecificationError(
            f"{' and '.join(missing)} missing (got {given or 'no KEY=VALUE'}); give {form}"
        )
    return found


def add_load_options(parser: ArgumentParser) -> None:
    """The options that say how checkpoints are loaded; their names and meanings are pytest's,
    without `--forgetguard-`."""
    group = parser.add_argument_group("how checkpoints are loaded")
    group.add_argument("--dtype", metavar="DTYPE", help="float32 (default), bfloat16 or float16")
    group.add_argument(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:1 or mps; default: cuda where there is one, else cpu",
    )
    group.add_argument(
        "--device-map",
        metavar="MAP",
        help="spread one model over devices; 'auto' for sharded checkpoints",
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="let checkpoints run the code they carry"
    )
    group.add_argument(
        "--allow-pickle", action="store_true", help="load checkpoints that are not safetensors"
    )


def load_options(asked: Namespace) -> LoadOptions:
    """How checkpoints are to be loaded (raises SpecificationError)."""
    for name in ("dtype", "device", "device_map"):
        value = getattr(asked, name)
        if value is not None and not value.strip():
            option = f"--{name.replace('_', '-')}"
            raise SpecificationError(f"{option} is empty (an unset variable?); give it a value")
    dtype = asked.dtype or DTYPES[0]
    if dtype not in DTYPES:
        raise SpecificationError(
            f"--dtype: {dtype!r} is none of {', '.join(DTYPES)}; choose one of them"
        )
    return LoadOptions(
        dtype=dtype,
        device=asked.device,
        device_map=asked.device_map,
        trust_remote_code=asked.trust_remote_code,
        allow_pickle=asked.allow_pickle,
    )


def gate_options(options: LoadOptions) -> list[str]:
    """The same options as arguments of pytest, those that are not the default."""
    default = asdict(LoadOptions())
    given = {name: value for name, value in asdict(options).items() if value != default[name]}
    return [
        f"--forgetguard-{name.replace('_', '-')}" + f"={value}" * (value is not True)
        for name, value in given.items()
    ]
