"""The frame of every training run: started, resumed after a kill, finished once, and kept."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.quiet import own_randomness
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import CheckpointError, SpecificationError, first_line
from forgetguard.gate.records import load
from forgetguard.recipes.locking import alone
from forgetguard.recipes.training import run_folder, saved_states
from forgetguard.recipes.training.logs import LOSSES, cut_logs, read_records
from forgetguard.recipes.training.run_card import (
    RunCard,
    final_fingerprint,
    summarise,
    verify_card,
    write_card,
)
from forgetguard.recipes.training.saved_states import SavedState
from forgetguard.recipes.training.settings import TrainingSettings
from forgetguard.recipes.training.surroundings import (
    count,
    deterministic,
    device_of,
    is_main,
    quiet_training,
    wait_for_all,
)
from forgetguard.report import json_file
from forgetguard.whole_files import write_text

_PARTIAL = ".final.partial"
# As torch's and safetensors' writers say it; 27 and 28 are a file too large and no space left.
_FULL_DISK = re.compile(
    r"no space left|disk quota|file too large|PytorchStreamWriter|inline_container|iostream error"
    r"|os error 2[78]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What a recipe's trainer has to be built with so that it can be stopped and resumed.

    Attributes:
        settings: of the run.
        arguments: keyword arguments of TRL's config (any `TrainingArguments`), a recipe's own to be
            added: output, steps, optimiser, batch, seed, saving, logging, device, quiet.
        callbacks: of the trainer; none may be left out.
        begin: the updates that lie behind.
    """

    settings: TrainingSettings
    arguments: Mapping[str, Any]
    callbacks: tuple[Any, ...]
    begin: int = 0


# From the frame to a trainer, and what is worth noting on the run card (plain values).
Build = Callable[[Frame], tuple[Any, Mapping[str, Any]]]


def run_training(
    settings: TrainingSettings, data: str, build: Build, *, progress: Progress | None = None
) -> Path:
    """Train, or go on where a killed run stopped, or return at once what is finished.

    Args:
        settings: of the run; `settings.output` is made where it is not there.
        data: `run_card.hash_questions` of everything trained on.
        build: makes the trainer; called only where there is something left to train.
        progress: told of every step.

    Returns:
        The folder of the final weights, with their tokenizer and run card. Beside it are the loss
        log and the checkpoints along the way.

    Raises:
        SpecificationError: the output folder cannot be used, or belongs to another run.
        CheckpointError: the base cannot be read, the disk is full, the final weights were changed.
        MeasurementError: training diverged.
    """
    run = Path(settings.output).expanduser().absolute()
    final = run / run_folder.FINAL
    run_folder.refuse_foreign(run)
    if not final.exists():  # what is finished needs no device
        device_of(settings)
        _device_rows(settings)
    asked = run_folder.identity(settings, data)
    # The processes of one run share its folder: the first holds the lock.
    held = alone(run, f"output {run}") if is_main() else nullcontext()
    with held, _full_disk_explained(run):
        run_folder.refuse_another(run, asked)
        if final.exists():
            verify_card(final)
            if is_main():
                saved_states.strip(run, keep=0)  # a kill may have come between
            return final
        if is_main():
            _note(run, asked)
            saved_states.remove_incomplete(run)
        state = saved_states.newest(run)
        if state is None or state.step < settings.steps:
            _train(settings, run, state, build, progress)
            state = saved_states.newest(run)
        if is_main():
            _finish(settings, run, state)
        wait_for_all()
    return final


def _note(run: Path, what: Mapping[str, Any]) -> None:
    """Add to what the folder says about its run."""
    write_text(run / run_folder.RUN, json.dumps({**run_folder.known(run), **what}, indent=2) + "\n")


@contextmanager
def _full_disk_explained(run: Path) -> Iterator[None]:
    """Turn what the libraries raise on a full disk into an error that says what is kept."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (
            errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
        )  # fmt: skip
        if not full and not _FULL_DISK.search(str(error)):
            raise
        state = saved_states.newest(run)
        kept = "no checkpoint was complete yet"
        if state is not None:
            kept = f"the checkpoint of step {state.step} is complete and kept"
        raise CheckpointError(
            f"output {run}: a file could not be written, as when the disk is full or a quota is "
            f"reached ({first_line(error)}); {kept}. Free some space and run the same again: it "
            f"goes on from there"
        ) from error


# --- training --------------------------------------------------------------------------------


def _train(
    settings: TrainingSettings,
    run: Path,
    state: SavedState | None,
    build: Build,
    progress: Progress | None,
) -> None:
    from transformers.trainer_callback import PrinterCallback

    from forgetguard.recipes.training.callbacks import RunCallback

    begin, seconds = (0, 0.0) if state is None else (state.step, state.seconds)
    if is_main():
        cut_logs(run, begin)
    with quiet_training(), own_randomness(), deterministic(device_of(settings) == "cpu"):
        callback = RunCallback(settings, run, seconds, progress)
        trainer, notes = build(Frame(settings, _arguments(settings, run), (callback,), begin))
        trainer.remove_callback(PrinterCallback)  # it prints where progress bars are off
        if is_main():
            _note(run, {"notes": dict(notes)})
        trainer.train(resume_from_checkpoint=None if state is None else str(state.folder))


def _arguments(settings: TrainingSettings, run: Path) -> dict[str, Any]:
    rows, accumulated = _device_rows(settings)
    cpu = device_of(settings) == "cpu"
    constant = settings.schedule == "constant"
    return {
        "output_dir": str(run),
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant_with_warmup" if constant else settings.schedule,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch",
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulated,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": settings.dtype == "bfloat16",
        "use_cpu": cpu,
        "ddp_find_unused_parameters": False,  # every weight in training takes part in every loss
        "dataloader_pin_memory": not cpu,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "logging_strategy": "steps",
        "logging_steps": settings.log_every,
        "logging_nan_inf_filter": False,  # it would hide divergence
        "report_to": "none",
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def _device_rows(settings: TrainingSettings) -> tuple[int, int]:
    """Rows that a device takes at once, and how often it does before an update."""
    devices = count()
    at_once = settings.micro_batch or max(settings.rows // devices, 1)
    if settings.rows % (devices * at_once):
        raise SpecificationError(
            f"{settings.rows} rows an update cannot be shared by {devices} device(s) taking "
            f"{at_once} rows at once: make the rows a multiple of {devices * at_once}, or change "
            f"micro_batch"
        )
    return at_once, settings.rows // (devices * at_once)


# --- finishing -------------------------------------------------------------------------------


def _finish(settings: TrainingSettings, run: Path, state: SavedState | None) -> None:
    """Copy the last checkpoint's model into a folder that gets its name when it is whole."""
    if state is None or state.step < settings.steps:
        reached = 0 if state is None else state.step
        raise CheckpointError(
            f"training in {run} ended at step {reached} of {settings.steps}, so there are no final "
            f"weights: run it again to go on"
        )
    partial = run / _PARTIAL
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    for path in state.model_files():
        shutil.copytree(path, partial / path.name) if path.is_dir() else shutil.copy2(path, partial)
    for path in partial.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the libraries make some private
    found = {
        "final": final_fingerprint(partial),
        "versions": json_file.versions("trl", "accelerate", "datasets"),
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "losses": summarise(read_records(run / LOSSES)),
        "seed": settings.seed,
    }
    card = load(RunCard, run_folder.known(run) | found, "a run card")
    write_card(partial, card)
    partial.rename(run / run_folder.FINAL)
    saved_states.strip(run, keep=0)
