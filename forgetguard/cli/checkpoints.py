"""Checkpoints on the command line, `base=CHECKPOINT`, how they are loaded (as for pytest), and the
circuit files beside them; without any, the bundled."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.options import DTYPES, LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.cli.command import adder
from forgetguard.cli.values import check_choice
from forgetguard.errors import SpecificationError
from forgetguard.gate.bundled import bundled_for
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import SUFFIXES, gate_files, load_gate_file
from forgetguard.gate.suitability import check_names

FILES = f"files that end in {SUFFIXES[0]}, or folders of them; default: those bundled for the base"
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


def read_asked(
    asked: Namespace, required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[dict[str, CheckpointSpec], LoadOptions, list[str]]:
    """The checkpoints by role, found to belong together; how to load them; and the other tokens,
    which name circuit files or folders.

    Raises:
        ForgetguardError: as `read_checkpoints`, or a checkpoint cannot be found or judged.
    """
    tokens, others = split_tokens(asked.tokens)
    given, options = read_checkpoints(tokens, required, optional), load_options(asked)
    specs = {role: resolve(at, role) for role, at in given.items()}
    if "base" in specs:
        check(specs["base"], specs.get("tuned"), allowed_by=None, options=options)
    return specs, options, others


def split_tokens(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """(KEY=VALUE tokens, circuit files and folders), each in their order."""
    circuits = [one for one in tokens if "=" not in one or Path(one).exists()]
    return [one for one in tokens if one not in circuits], circuits


def add_load_options(parser: ArgumentParser) -> None:
    """The options that say how checkpoints are loaded; their names and meanings are pytest's,
    without `--forgetguard-`."""
    add = adder(parser.add_argument_group("how checkpoints are loaded"))
    add("--dtype", "DTYPE", "float32 (default), bfloat16 or float16")
    where = "cpu, cuda, cuda:1 or mps; default: cuda where there is one, else cpu"
    add("--device", "DEVICE", where)
    add("--device-map", "MAP", "spread one model over devices; 'auto' for sharded checkpoints")
    add("--trust-remote-code", "", "let checkpoints run the code they carry")
    add("--allow-pickle", "", "load checkpoints that are not safetensors")


def load_options(asked: Namespace) -> LoadOptions:
    """How checkpoints are to be loaded (raises SpecificationError)."""
    for name in ("dtype", "device", "device_map"):
        value = getattr(asked, name)
        if value is not None and not value.strip():
            option = f"--{name.replace('_', '-')}"
            raise SpecificationError(f"{option} is empty (an unset variable?); give it a value")
    dtype = asked.dtype or DTYPES[0]
    check_choice("--dtype", dtype, DTYPES)
    given = {name: getattr(asked, name) for name in _AS_ASKED}
    return LoadOptions(dtype=dtype, **given)


_AS_ASKED = ("device", "device_map", "trust_remote_code", "allow_pickle")


def gate_options(options: LoadOptions) -> list[str]:
    """The same options as arguments of pytest, those that are not the default."""
    default = asdict(LoadOptions())
    given = {name: value for name, value in asdict(options).items() if value != default[name]}
    return [
        f"--forgetguard-{name.replace('_', '-')}" + f"={value}" * (value is not True)
        for name, value in given.items()
    ]


def written(options: Mapping[str, Any], loading: LoadOptions) -> list[str]:
    """Options as arguments, those of loading among them where they are not the default."""
    own = [f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}"
           for name, value in options.items()]  # fmt: skip
    return own + [one.replace("--forgetguard-", "--", 1) for one in gate_options(loading)]


def read_circuits(
    given: Sequence[str], base: CheckpointSpec, options: LoadOptions, *, judged: bool = True
) -> tuple[GateSpec, ...]:
    """The circuits of the files and folders that were given, or those bundled for the base. Where
    none is `judged`, a file may hold prompt pairs without circuit and limits.

    Raises:
        SpecificationError: a file is not there or cannot be read, a folder holds none, two circuits
            have one name, or nothing was given and nothing bundled fits.
    """
    if not given:
        circuits = [spec for _, spec in bundled_for(base, options)]
        if not circuits:
            raise SpecificationError(
                f"no circuits: no circuit file was given, and none of those bundled fits {base}; "
                f"give *{SUFFIXES[0]} files (forgetguard discover writes them)"
            )
    else:
        files = {file.resolve(): file for path in given for file in gate_files(Path(path))}.values()
        circuits = [load_gate_file(file, judged=judged) for file in files]
    check_names(circuits)
    return tuple(circuits)
