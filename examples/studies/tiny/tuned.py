"""`tiny:sft` and `tiny:rl`: two runs of the reference suite's tiny preset."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from examples.studies.reference import training
from examples.studies.reference.plan import read_plan
from forgetguard.recipes.training.run_card import CARD
from forgetguard.recipes.training.run_folder import FINAL

PRESET = "tiny"


def build_run(run: str, name: str, out: Path, report: Callable[[str], None]) -> None:
    """Train the run of that name in the preset and write its final weights to `out`/`name`.

    The run card is left behind: its seconds are others every time.

    Raises:
        KeyError: the preset has no such run.
        ForgetguardError: it cannot be trained; the message says why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plan = read_plan(PRESET, out=Path(scratch))
        training.train(plan, run, lambda *_: None)
        final = plan.run(run).folder / FINAL
        report(f"{name}: {run}, {plan.run(run).settings.steps} steps")
        (final / CARD).unlink()
        if (out / name).exists():
            shutil.rmtree(out / name)
        shutil.copytree(final, out / name)
