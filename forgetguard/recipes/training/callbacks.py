"""What is done beside the training loop: the loss log, whole checkpoints, progress."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from forgetguard.discovery.ranking import Progress
from forgetguard.errors import MeasurementError
from forgetguard.recipes.training.rollout_log import read_records
from forgetguard.recipes.training.saved_states import mark, strip, wait_for_all

LOSSES = "losses.jsonl"
_RESUMABLE = 2  # the last but one is there in case the last was damaged
_NOT_LOGGED = ("epoch", "num_tokens")  # counted anew by a resumed run, or said by the step


def read_losses(run: Path) -> list[dict[str, float]]:
    """The loss log of a run, a record a line; a line that a kill cut short is left out."""
    return read_records(run / LOSSES)


class LossLog(TrainerCallback):
    """Appends every number that the trainer logs to the run's loss log; what a resumed run will
    log again is taken off first. A loss that is not finite ends training."""

    def __init__(self, run: Path, steps: int) -> None:
        self._run, self._steps = run, steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            kept = [one for one in read_losses(self._run) if one["step"] <= state.global_step]
            text = "".join(json.dumps(one) + "\n" for one in kept)
            (self._run / LOSSES).write_text(text, encoding="utf-8")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == self._steps:  # the last steps are logged, however few they are
            control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        logs: dict[str, Any] = given["logs"]
        if "loss" not in logs:  # the summary at the end
            return
        numbers = {
            key: value
            for key, value in logs.items()
            if isinstance(value, int | float) and key not in _NOT_LOGGED
        }
        bad = [key for key in ("loss", "grad_norm") if not math.isfinite(numbers.get(key, 0.0))]
        if bad:
            raise MeasurementError(
                f"training diverged: {' and '.join(bad)} was not finite by step "
                f"{state.global_step}: lower learning_rate (or the weight of the recipe's term), "
                f"or lengthen warmup; checkpoints before that are in {self._run}"
            )
        if state.is_world_process_zero:
            with (self._run / LOSSES).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **numbers}) + "\n")


class WholeCheckpoints(TrainerCallback):
    """Marks every checkpoint once all of it is there, and thins out the older ones."""

    def __init__(self, run: Path, seconds: float, prepare: Callable[[Path], None]) -> None:
        self._run, self._before, self._prepare = run, seconds, prepare
        self._started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        wait_for_all()  # every process writes a file of its own
        if state.is_world_process_zero:
            folder = self._run / f"checkpoint-{state.global_step}"
            self._prepare(folder)
            seconds = self._before + time.monotonic() - self._started
            mark(folder, state.global_step, seconds)
            strip(self._run, keep=_RESUMABLE)


class Reporting(TrainerCallback):
    """Reports progress after every step."""

    def __init__(self, progress: Progress, what: str, steps: int) -> None:
        self._progress, self._what, self._steps = progress, what, steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero:
            self._progress(self._what, state.global_step, self._steps)
