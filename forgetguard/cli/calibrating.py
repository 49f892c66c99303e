"""What `forgetguard calibrate` does once it is known to be asked rightly."""

from __future__ import annotations

import json
import shlex
import stat
import sys
from dataclasses import asdict
from pathlib import Path

from forgetguard.calibration.calibrating import Calibration, calibrate
from forgetguard.calibration.editing import Edit, edit_limits
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.cli.calibrate import Plan
from forgetguard.cli.command import DONE, INTERRUPTED, say
from forgetguard.cli.progress import progress_bar
from forgetguard.errors import SpecificationError
from forgetguard.gate.bundled import is_bundled
from forgetguard.report.calibration_table import calibration_dict, calibration_text
from forgetguard.whole_files import write_text


def calibrate_all(plan: Plan) -> int:
    """Read the nulls, print the tables and the diff, write what was asked for; returns the exit
    status.

    Raises:
        ForgetguardError: it cannot be done; the message says why.
    """
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
    if plan.out is not None:
        document = calibration_dict(found, _asked(plan))
        write_text(plan.out, json.dumps(document, indent=2, allow_nan=False) + "\n")
    sys.stdout.write(f"{calibration_text(found)}\n")
    _propose(plan, _edits(found))
    return DONE


def _asked(plan: Plan) -> dict[str, object]:
    return {"command": list(plan.command), "loading": asdict(plan.loading)}


def _edits(found: Calibration) -> list[Edit]:
    """Of every circuit that came from a file: all made before any is written."""
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
    _unchanged(edit, target)
    mode = stat.S_IMODE(target.stat().st_mode)
    try:
        write_text(target, edit.after)
        target.chmod(mode)
    except OSError as error:
        raise SpecificationError(f"{edit.path}: cannot be written: {error.strerror}") from None


def _unchanged(edit: Edit, target: Path) -> None:
    """Measuring takes minutes: what somebody wrote meanwhile is not overwritten."""
    if target.read_bytes() != edit.before.encode():
        raise SpecificationError(
            f"{edit.path} was changed while it was calibrated: nothing was written to it; run the "
            "command again"
        )
