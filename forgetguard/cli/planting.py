"""What `forgetguard sensitivity` does once it is known to be asked rightly."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from forgetguard.calibration.dose_response import Sensitivity, sensitivity
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.cli.command import DONE, INTERRUPTED, say
from forgetguard.cli.progress import progress_bar
from forgetguard.cli.sensitivity import Plan
from forgetguard.errors import SpecificationError
from forgetguard.report.sensitivity_table import sensitivity_dict, sensitivity_text
from forgetguard.whole_files import write_text

RESULT = "sensitivity.json"


def plant_all(plan: Plan) -> int:
    """Plant, print the tables, write JSON and figures; returns the exit status.

    Raises:
        ForgetguardError: it cannot be done; the message says why.
    """
    try:
        with progress_bar() as bar, ModelPair({"base": plan.base}, plan.loading) as pair:
            found = sensitivity(
                pair,
                plan.circuits,
                plants=plan.plants,
                doses=plan.doses,
                heads=plan.heads,
                draws=plan.draws,
                seed=plan.seed,
                progress=bar,
            )
    except KeyboardInterrupt:
        say("forgetguard sensitivity: interrupted; nothing was written")
        return INTERRUPTED
    for note in found.refused:
        say(f"forgetguard sensitivity: {note}")
    sys.stdout.write(f"{sensitivity_text(found)}\n")
    if plan.out is not None:
        _write(plan, found)
    return DONE


def _write(plan: Plan, found: Sensitivity) -> None:
    assert plan.out is not None
    asked = {"command": list(plan.command), "loading": asdict(plan.loading)}
    document = json.dumps(sensitivity_dict(found, asked), indent=2, allow_nan=False)
    try:
        plan.out.mkdir(exist_ok=True)
        write_text(plan.out / RESULT, f"{document}\n")
        written = [plan.out / RESULT, *(_draw(plan, found) if plan.figures else [])]
    except OSError as error:
        raise SpecificationError(f"--out: {plan.out} cannot be written: {error}") from None
    say(f"written: {', '.join(map(str, written))}")


def _draw(plan: Plan, found: Sensitivity) -> list[object]:
    from forgetguard.report.sensitivity_figure import draw

    assert plan.out is not None
    return list(draw(found.curves, plan.out))
