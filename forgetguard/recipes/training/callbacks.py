"""What is done beside the training loop: the loss log, whole checkpoints, progress."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from forgetguard.checkpoints.files import read_json
from forgetguard.checkpoints.spec import ADAPTER_CONFIG, CONFIG, resolve
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import MeasurementError
from forgetguard.recipes.training.logs import LOSSES, append_record
from forgetguard.recipes.training.saved_states import mark, strip
from forgetguard.recipes.training.settings import TrainingSettings
from forgetguard.recipes.training.surroundings import wait_for_all
from forgetguard.whole_files import write_text

_RESUMABLE = 2  # the last but one is there in case the last was damaged
_NOT_LOGGED = ("epoch", "num_tokens")  # counted anew by a resumed run, or said by the step
_TOKENIZER_CONFIG, _READ_FROM = "tokenizer_config.json", ("is_local", "local_files_only")


class RunCallback(TrainerCallback):
    """Appends every number that the trainer logs to the run's loss log, ends training at a loss
    that is not finite, marks every checkpoint once all of it is there, thins out the older ones,
    and reports progress.

    Args:
        seconds: of training that lie behind.
    """

    def __init__(
        self, settings: TrainingSettings, run: Path, seconds: float, progress: Progress | None
    ) -> None:
        self._settings, self._run = settings, run
        self._before, self._started = seconds, 0.0
        self._progress = progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        steps = self._settings.steps
        if state.global_step == steps:  # the last steps are logged, however few they are
            control.should_log = True
        if self._progress is not None and state.is_world_process_zero:
            self._progress(self._settings.recipe, state.global_step, steps)

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
            append_record(self._run / LOSSES, {"step": state.global_step, **numbers})

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        wait_for_all()  # every process writes a file of its own
        if state.is_world_process_zero:
            folder = self._run / f"checkpoint-{state.global_step}"
            _make_portable(folder, self._settings)
            seconds = self._before + time.monotonic() - self._started
            mark(folder, state.global_step, seconds)
            strip(self._run, keep=_RESUMABLE)


def _make_portable(folder: Path, settings: TrainingSettings) -> None:
    """Make what the trainer saved independent of this process and this machine: an adapter names
    its base as the user did, its lists are in order (peft keeps sets), the cache is on again, the
    tokenizer does not remember that it was read from a folder."""
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card
    adapter, config = folder / ADAPTER_CONFIG, folder / CONFIG
    tokenizer = folder / _TOKENIZER_CONFIG
    if tokenizer.exists():
        read = {key: value for key, value in read_json(tokenizer).items() if key not in _READ_FROM}
        write_text(tokenizer, json.dumps(read, indent=2) + "\n")
    if adapter.exists():
        read = read_json(adapter)
        base = resolve(settings.base, "base")
        local = base.kind == "directory" and not base.given.startswith("tiny:")
        read["base_model_name_or_path"] = base.location if local else base.given
        ordered = {
            key: sorted(value) if isinstance(value, list) else value
            for key, value in sorted(read.items())
        }
        write_text(adapter, json.dumps(ordered, indent=2) + "\n")
    elif config.exists():
        read = read_json(config)
        write_text(config, json.dumps({**read, "use_cache": True}, indent=2, sort_keys=True) + "\n")
