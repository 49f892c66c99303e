"""`forgetguard calibrate`: what the declared circuits read where nothing happened, and limits."""

from __future__ import annotations

import json
import shlex
import stat
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.cli.checkpoints import (
    FILES,
    add_checkpoints,
    add_load_options,
    read_asked,
    read_circuits,
    written,
)
from forgetguard.cli.command import DONE, INTERRUPTED, Job, adder, command, say, whole_imports
from forgetguard.cli.progress import progress_bar
from forgetguard.cli.values import new_file, read_whole
from forgetguard.errors import SpecificationError
from forgetguard.gate.bundled import is_bundled
from forgetguard.gate.declaration import GateSpec
from forgetguard.whole_files import write_result, write_text

if TYPE_CHECKING:
    from forgetguard.calibration.calibrating import Calibration
    from forgetguard.calibration.editing import Edit

# As in calibration/, which needs torch; a test holds them equal.
DRAWS, ALARM = 20, 0.05
MOST_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and checked. `out`: where JSON goes; `write`: change the files;
    `command`: what measures the same again."""

    specs: Mapping[str, CheckpointSpec]
    loading: LoadOptions
    circuits: tuple[GateSpec, ...]
    draws: int
    alarm: float
    seed: int
    write: bool
    out: Path | None
    command: tuple[str, ...]


def _options(parser: ArgumentParser) -> None:
    add_checkpoints(parser, ("base", "[tuned]"))
    add = adder(parser)
    parser.epilog = f"circuits: {FILES}\n\n{parser.epilog}"
    draws = "random weight changes as large as tuning's, and random head sets; default: "
    add("--draws", "N", f"{draws}{DRAWS}, which can state 5 %%", default=str(DRAWS))
    alarm = "how often a limit may hold such a change, a fail or an abstention; default: "
    add("--alarm", "RATE", f"{alarm}{ALARM:g}", type=float, default=ALARM)
    add("--seed", "N", "of all that is drawn; default: 0", default="0")
    add("--write", "", "write the suggested numbers into the circuit files")
    add("--out", "FILE", "also write everything that was read, as JSON")
    add("--force", "", "replace FILE if it is there")
    add_load_options(parser)


def _prepare(asked: Namespace) -> Job:
    plan = read_plan(asked)
    return lambda: calibrate_all(plan)


def read_plan(asked: Namespace) -> Plan:
    """What was asked for, as far as it can be checked before anything heavy is imported."""
    specs, loading, files = read_asked(asked, ("base",), ("tuned",))
    draws, seed = read_whole("--draws", asked.draws), read_whole("--seed", asked.seed)
    if not 1 <= draws <= MOST_DRAWS:
        raise SpecificationError(f"--draws: {draws}; give between 1 and {MOST_DRAWS}")
    if not 0 < asked.alarm < 1:
        raise SpecificationError(f"--alarm: {asked.alarm:g}; give a rate between 0 and 1: 0.05")
    out = new_file("--out", asked.out, force=asked.force)
    circuits = read_circuits(files, specs["base"], loading)
    if asked.write:
        _check_own(circuits)
    options = {"draws": draws, "alarm": asked.alarm, "seed": seed}
    command = ("forgetguard", "calibrate", *asked.tokens, *written(options, loading))
    return Plan(specs, loading, circuits, draws, asked.alarm, seed, asked.write, out, command)


def _check_own(circuits: tuple[GateSpec, ...]) -> None:
    """Circuits that came with the package are not the user's to change: the next installation
    would bring the old numbers back."""
    bundled = [spec.path for spec in circuits if spec.path is not None and is_bundled(spec.path)]
    if bundled:
        raise SpecificationError(
            f"--write: {bundled[0]} is bundled with forgetguard and is never written: copy it, and "
            "the prompt file that it names, into your own folder, and give the copy"
        )


# --- the work ---------------------------------------------------------------------------------


def calibrate_all(plan: Plan) -> int:
    """Read the nulls, print the tables and the diff, write what was asked for; returns the exit
    status."""
    with whole_imports():
        from forgetguard.calibration.calibrating import calibrate
        from forgetguard.checkpoints.placement import ModelPair
        from forgetguard.report.calibration_table import calibration_dict, calibration_text
    try:
        with progress_bar() as bar, ModelPair(plan.specs, plan.loading) as pair:
            found = calibrate(
                pair,
                plan.circuits,
                draws=plan.draws,
                alarm=plan.alarm,
                seed=plan.seed,
                progress=bar,
            )
    except KeyboardInterrupt:
        say("forgetguard calibrate: interrupted; nothing was written")
        return INTERRUPTED
    for note in (*found.refused, *found.notes):
        say(f"forgetguard calibrate: {note}")
    sys.stdout.write(f"{calibration_text(found)}\n")
    if plan.out is not None:
        asked = {"command": list(plan.command), "loading": asdict(plan.loading)}
        document = calibration_dict(found, asked)
        write_result(plan.out, json.dumps(document, indent=2, allow_nan=False) + "\n")
    _propose(plan, _edits(found))
    return DONE


def _edits(found: Calibration) -> list[Edit]:
    """Of every circuit that came from a file: all made before any is written."""
    from forgetguard.calibration.editing import edit_limits

    edits = []
    for one in found.circuits:
        if one.spec.path is not None:
            limits = {advice.limit.key: advice.written for advice in one.advice}
            edits.append(edit_limits(one.spec.path, limits))
    return [edit for edit in edits if edit.changed]


def _propose(plan: Plan, edits: list[Edit]) -> None:
    if not edits:
        say("\nno limit would change")
        return
    sys.stdout.write("\n" + "".join(edit.diff() for edit in edits))
    sys.stdout.flush()
    if plan.write:
        for edit in edits:
            _write(edit)
        say(f"\nwritten: {', '.join(str(edit.path) for edit in edits)}; review them with the code")
    elif any(is_bundled(edit.path) for edit in edits):
        say("\nbundled circuits are never written: copy those that you want to change, and the "
            "prompt files that they name, and calibrate the copies with --write")  # fmt: skip
    else:
        again = shlex.join([*plan.command, "--write"])
        say(f"\nnothing was written; after reviewing the diff:\n  {again}")


def _write(edit: Edit) -> None:
    """The file that the path leads to, whole or not at all, with its mode."""
    target = edit.path.resolve()
    # Measuring takes minutes: what somebody wrote meanwhile is not overwritten.
    if target.read_bytes() != edit.before.encode():
        raise SpecificationError(
            f"{edit.path} was changed while it was calibrated: nothing was written to it; run the "
            "command again"
        )
    mode = stat.S_IMODE(target.stat().st_mode)
    try:
        write_text(target, edit.after)
        target.chmod(mode)
    except OSError as error:
        raise SpecificationError(f"{edit.path}: cannot be written: {error.strerror}") from None


COMMAND = command("calibrate", _options, _prepare)
