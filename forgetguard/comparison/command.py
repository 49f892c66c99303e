"""`forgetguard compare`: its options, what was asked for, and doing it. [light until it is done]"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import BaseCannotError, SpecificationError

if TYPE_CHECKING:
    from forgetguard.capabilities.capability import Capability
    from forgetguard.comparison.result import Comparison

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # what, done, total

ROLES = ("base", "tuned", "reference")
FEWEST_PAIRS = 16  # two halves of 8
# As in compare.py and the measures, which need torch or scipy; a test holds them equal.
PAIRS, SEEDS, DELTA, LEAST_STABILITY = 128, "0,1,2", 0.5, 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and checked. `prompts` are those of the prompt file; without one, pairs
    are drawn from each of `tasks`."""

    specs: Mapping[str, CheckpointSpec]
    loading: LoadOptions
    tasks: tuple[str, ...]
    prompts: tuple[PromptPair, ...]
    name: str  # of the prompt file's capability
    pairs: int
    prompt_seed: int
    readout: str
    chat_template: bool
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    delta: float
    least_stability: float
    keep: bool


def options(parser: argparse.ArgumentParser) -> None:
    """Add what `forgetguard compare` can be told; checkpoints arrive in `tokens`."""
    parser.add_argument(
        "tokens",
        nargs="*",
        metavar="ROLE=CHECKPOINT",
        help="base=..., tuned=... and perhaps reference=...: hub id, directory, peft adapter "
        "directory, or tiny:base, tiny:sft, tiny:lora",
    )
    _prompt_options(parser.add_argument_group("the capability (one of --task and --prompts)"))
    _mask_options(parser.add_argument_group("how circuits are found and compared"))
    add = parser.add_argument_group("how checkpoints are loaded").add_argument
    add("--dtype", metavar="DTYPE", default="float32", help="float32 (default), bfloat16, float16")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:1 or mps; default: cuda, else cpu")
    add("--device-map", metavar="MAP", help="auto: spread a model over all devices")
    add("--trust-remote-code", action="store_true", help="let checkpoints run the code they carry")
    add("--allow-pickle", action="store_true", help="load checkpoints that are not safetensors")


def _prompt_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--task", action="append", default=[], metavar="NAME", help="draw pairs from it; repeatable"
    )
    add("--prompts", type=Path, metavar="FILE", help="prompt pairs, JSONL")
    add("--pairs", type=int, default=PAIRS, metavar="N", help=f"of a task; default: {PAIRS}")
    add("--seed", type=int, default=0, metavar="N", help="of the pairs; default: 0")
    add("--readout", default="logit_diff", metavar="NAME", help="logit_diff (default) or logprob")
    add("--chat-template", action="store_true", help="wrap each prompt as a user's turn")


def _mask_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--seeds", default=SEEDS, metavar="N,N", help=f"of the masks; default: {SEEDS}")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of binary masking, its value in YAML; repeatable",
    )
    add(
        "--delta",
        type=float,
        default=DELTA,
        metavar="FALL",
        help=f"of a mask, beyond which its head is vulnerable; default: {DELTA}",
    )
    add(
        "--least-stability",
        type=float,
        default=LEAST_STABILITY,
        metavar="SHARE",
        help=f"of the base with itself, below which retention abstains; default: {LEAST_STABILITY}",
    )
    add(
        "--no-cache",
        action="store_true",
        help="neither keep finished work in $FORGETGUARD_CACHE nor take up what is there",
    )


def run(asked: argparse.Namespace, say: Say, progress: Progress | None = None) -> list[Comparison]:
    """`read_plan`, then `carry_out`."""
    return carry_out(read_plan(asked), say, progress)


def read_plan(asked: argparse.Namespace) -> Plan:
    """What was asked for, as far as it can be checked before anything heavy is imported.

    Raises:
        ForgetguardError: it cannot be run.
    """
    from forgetguard.checkpoints.preflight import check
    from forgetguard.checkpoints.spec import resolve
    from forgetguard.gate.prompt_files import read_prompt_file

    given = _roles(asked.tokens)
    if bool(asked.task) == bool(asked.prompts):
        both = "not both" if asked.task else "forgetguard tasks lists the tasks"
        raise SpecificationError(f"give --task NAME or --prompts FILE; {both}")
    _check_numbers(asked)
    loading = LoadOptions(
        dtype=asked.dtype,
        device=asked.device,
        device_map=asked.device_map,
        trust_remote_code=asked.trust_remote_code,
        allow_pickle=asked.allow_pickle,
    )
    prompts = read_prompt_file(asked.prompts, readout=asked.readout) if asked.prompts else []
    specs = {role: resolve(at, role) for role, at in given.items()}
    check(specs["base"], specs["tuned"], specs.get("reference"), options=loading)
    return Plan(
        specs=specs,
        loading=loading,
        tasks=_tasks(asked.task),
        prompts=tuple(prompts),
        name=asked.prompts.stem if asked.prompts else "",
        pairs=asked.pairs,
        prompt_seed=asked.seed,
        readout=asked.readout,
        chat_template=asked.chat_template,
        seeds=_seeds(asked.seeds),
        settings=dict(map(_setting, asked.set)),
        delta=asked.delta,
        least_stability=asked.least_stability,
        keep=not asked.no_cache,
    )


def carry_out(plan: Plan, say: Say, progress: Progress | None = None) -> list[Comparison]:
    """Compare the checkpoints on every capability. One that the base cannot do is said, and left
    out, if there are others.

    Raises:
        ForgetguardError: a model cannot be measured, or the base can do none of the capabilities.
    """
    from forgetguard.checkpoints.placement import ModelPair
    from forgetguard.comparison.compare import compare

    found, refused = [], None
    with ModelPair(plan.specs, plan.loading) as pair:
        for capability in _capabilities(plan):
            try:
                found.append(
                    compare(
                        pair,
                        capability,
                        seeds=plan.seeds,
                        settings=plan.settings,
                        delta=plan.delta,
                        least_stability=plan.least_stability,
                        keep=plan.keep,
                        progress=progress,
                    )
                )
            except BaseCannotError as error:
                refused = error
                say(str(error))
    if refused is not None and not found:
        raise refused
    return found


def _capabilities(plan: Plan) -> list[Capability]:
    from forgetguard.capabilities.capability import Capability

    common: dict[str, Any] = {"readout": plan.readout, "chat_template": plan.chat_template}
    if plan.prompts:
        return [Capability(plan.name, pairs=plan.prompts, **common)]
    drawn = {"count": plan.pairs, "seed": plan.prompt_seed, **common}
    return [Capability(task, task=task, **drawn) for task in plan.tasks]


def _roles(tokens: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for token in tokens:
        role, _, at = token.partition("=")
        if role not in ROLES or not at.strip():
            raise SpecificationError(
                f"{token!r} is not ROLE=CHECKPOINT with a role of {', '.join(ROLES)}: give "
                "base=... tuned=... and, if there is one, reference=..."
            )
        if role in found:
            raise SpecificationError(f"{role}= was given twice: {found[role]}, {at}")
        found[role] = at
    missing = [role for role in ROLES[:2] if role not in found]
    if missing:
        raise SpecificationError(f"{missing[0]}= is missing: give base=... and tuned=...")
    return found


def _check_numbers(asked: argparse.Namespace) -> None:
    from forgetguard.gate.schema import READOUTS

    if asked.readout not in READOUTS:
        raise SpecificationError(
            f"--readout: {asked.readout!r} is none of {', '.join(READOUTS)}; choose one of them"
        )
    if asked.pairs < FEWEST_PAIRS:
        raise SpecificationError(f"--pairs: {asked.pairs}; give {FEWEST_PAIRS} or more")
    if not 0 <= asked.delta < 1:
        raise SpecificationError(f"--delta: {asked.delta:g}; give a fall from 0 to below 1")
    if not 0 <= asked.least_stability <= 1:
        raise SpecificationError(
            f"--least-stability: {asked.least_stability:g}; give an agreement from 0 to 1"
        )


def _tasks(names: Sequence[str]) -> tuple[str, ...]:
    from forgetguard.capabilities.tasks import find_task

    for name in names:
        find_task(name)
    return tuple(dict.fromkeys(names))


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise SpecificationError(
            f"--seeds: {text!r}; give whole numbers, each once, such as {SEEDS}"
        )
    return tuple(map(int, parts))


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise SpecificationError(f"--set: {text!r} is no KEY=VALUE; write e.g. --set steps=10")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise SpecificationError(
            f"--set: {text!r}: the value is not YAML; write a number, a name, or [1, 2]"
        ) from None
