"""`forgetguard calibrate`: what the declared circuits read where nothing happened, and limits."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.cli.checkpoints import (
    add_checkpoints,
    add_load_options,
    load_options,
    read_checkpoints,
)
from forgetguard.cli.circuits import FILES, read_circuits, split_tokens
from forgetguard.cli.command import Command, Job, whole_imports
from forgetguard.cli.values import new_file, read_whole, written
from forgetguard.errors import SpecificationError
from forgetguard.gate.bundled import is_bundled
from forgetguard.gate.declaration import CircuitSpec

# As in calibration/, which needs torch; a test holds them equal.
DRAWS, ALARM = 20, 0.05
MOST_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and checked. `out`: where JSON goes; `write`: change the files;
    `command`: what measures the same again."""

    specs: Mapping[str, CheckpointSpec]
    loading: LoadOptions
    circuits: tuple[CircuitSpec, ...]
    draws: int
    alarm: float
    seed: int
    write: bool
    out: Path | None
    command: tuple[str, ...]


def _options(parser: ArgumentParser) -> None:
    add_checkpoints(parser, ("base", "[tuned]"))
    add = parser.add_argument
    parser.epilog = f"circuits: {FILES}\n\n{parser.epilog}"
    add(
        "--draws",
        default=str(DRAWS),
        metavar="N",
        help="random weight changes as large as tuning's, and random head sets; "
        f"default: {DRAWS}, which can state 5 %%",
    )
    add(
        "--alarm",
        type=float,
        default=ALARM,
        metavar="RATE",
        help="how often a limit may hold such a change, a fail or an abstention; "
        f"default: {ALARM:g}",
    )
    add("--seed", default="0", metavar="N", help="of all that is drawn; default: 0")
    add("--write", action="store_true", help="write the suggested numbers into the circuit files")
    add("--out", metavar="FILE", help="also write everything that was read, as JSON")
    add("--force", action="store_true", help="replace FILE if it is there")
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    plan = read_plan(asked)

    def job() -> int:
        with whole_imports():
            from forgetguard.cli.calibrating import calibrate_all
        return calibrate_all(plan)

    return job


def read_plan(asked: Namespace) -> Plan:
    """What was asked for, as far as it can be checked before anything heavy is imported.

    Raises:
        ForgetguardError: it cannot be run.
    """
    tokens, files = split_tokens(asked.tokens)
    given = read_checkpoints(tokens, ("base",), ("tuned",))
    draws, seed = read_whole("--draws", asked.draws), read_whole("--seed", asked.seed)
    if not 1 <= draws <= MOST_DRAWS:
        raise SpecificationError(f"--draws: {draws}; give between 1 and {MOST_DRAWS}")
    if not 0 < asked.alarm < 1:
        raise SpecificationError(f"--alarm: {asked.alarm:g}; give a rate between 0 and 1: 0.05")
    loading, out = load_options(asked), new_file("--out", asked.out, force=asked.force)
    specs = {role: resolve(at, role) for role, at in given.items()}
    check(specs["base"], specs.get("tuned"), allowed_by=None, options=loading)
    circuits = read_circuits(files, specs["base"], loading)
    if asked.write:
        _check_own(circuits)
    options = {"draws": draws, "alarm": asked.alarm, "seed": seed}
    command = ("forgetguard", "calibrate", *asked.tokens, *written(options, loading))
    return Plan(specs, loading, circuits, draws, asked.alarm, seed, asked.write, out, command)


def _check_own(circuits: tuple[CircuitSpec, ...]) -> None:
    """Circuits that came with the package are not the user's to change: the next installation
    would bring the old numbers back."""
    bundled = [spec.path for spec in circuits if spec.path is not None and is_bundled(spec.path)]
    if bundled:
        raise SpecificationError(
            f"--write: {bundled[0]} is bundled with forgetguard and is never written: copy it, and "
            "the prompt file that it names, into your own folder, and give the copy"
        )


COMMAND = Command(
    "calibrate",
    "measure what the declared circuits read where nothing happened, and suggest limits",
    _options,
    _prepare,
)
