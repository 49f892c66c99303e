"""One run of a plan: its questions, through its recipe, into its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.studies.reference.plan import Plan, Run
from examples.studies.reference.prompts import replayed_questions, training_questions
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import ForgetguardError
from forgetguard.recipes.training.run_card import read_card
from forgetguard.recipes.training.run_folder import FINAL
from forgetguard.recipes.training.saved_states import saved_states
from forgetguard.recipes.training.settings import REINFORCED, as_dict


def train(plan: Plan, name: str, progress: Progress) -> None:
    """Train the run of that name; one that was killed goes on, one that is finished is left alone.

    Raises:
        ForgetguardError: it cannot be trained; the message says why.
    """
    run = plan.run(name)
    questions = training_questions(plan.data, run.seed)
    # Imported only by who trains: the plan and the page need neither.
    if run.recipe in REINFORCED:
        from forgetguard.recipes.training.rl import train_rl

        train_rl(run.settings, questions, progress=progress)
        return
    from forgetguard.recipes.training.sft import train_sft

    replay = replayed_questions(plan, run.seed) if run.recipe == "sft-replay" else []
    train_sft(run.settings, questions, replay=replay, progress=progress)


def finished(run: Run) -> bool:
    """Whether the run's folder holds its result, with these settings."""
    try:
        card = read_card(run.folder / FINAL)
    except ForgetguardError:
        return False
    asked = as_dict(run.settings)
    asked.pop("output")
    return _settled(card.settings) == _settled(asked)


def _settled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without the folder in which the study lies, which may be moved: of a start, its run and
    step."""
    start = settings.get("start")
    return {**settings, "start": None if start is None else Path(start).parts[-2:]}


def checkpoints(run: Run) -> dict[int, Path]:
    """The checkpoints of a finished run, those along the way too, by their step."""
    found = {state.step: state.folder for state in saved_states(run.folder)}
    return dict(sorted({**found, run.settings.steps: run.folder / FINAL}.items()))
