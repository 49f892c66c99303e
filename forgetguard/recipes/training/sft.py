"""Supervised fine-tuning, plain and regularised: `train_sft`.

The recipes: `sft` (cross-entropy on the answer), `sft-kl` (plus KL to the base), `sft-replay` (old
questions among the new), `sft-circuit` (plus the circuit's distance from the base's), `sft-flow`
(easy questions count for more). Torch and TRL are imported only where there is something to train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.discovery.ranking import Progress
from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.losses.replay import draw_replay
from forgetguard.recipes.training.run_card import hash_questions
from forgetguard.recipes.training.running import Frame, run_training
from forgetguard.recipes.training.settings import SUPERVISED, TrainingSettings

if TYPE_CHECKING:
    from forgetguard.recipes.training.rows import Rows


def train_sft(
    settings: TrainingSettings,
    train: Sequence[Question],
    *,
    replay: Sequence[Question] = (),
    progress: Progress | None = None,
) -> Path:
    """Fine-tune `settings.base` on `train` and return the folder of the final weights.

    A run that was killed goes on at its last checkpoint and ends with the same weights (on one
    device and the CPU, bit for bit); a run that is finished is not repeated.

    Args:
        settings: of one of the supervised recipes.
        train: the questions; the loss is taken on their answers and the end of sequence alone.
        replay: for `sft-replay`, questions of the old task to draw from.
        progress: told of every step.

    Raises:
        SpecificationError: settings of another recipe, no questions, empty prompts or answers,
            replay missing or not asked for, an output folder that cannot be used or holds another
            run, an adapter for modules that the base does not have.
        CapabilityError: too many questions do not fit the tokenizer or `max_length`.
        AnatomyError: a head of the circuit is not in the base.
        CheckpointError: the base cannot be read, the disk is full, the result was changed.
        MeasurementError: training diverged.
    """
    if settings.recipe not in SUPERVISED:
        raise SpecificationError(
            f"recipe {settings.recipe} is not supervised: use one of {', '.join(SUPERVISED)}"
        )
    if replay and settings.recipe != "sft-replay":
        raise SpecificationError(f"{settings.recipe} replays nothing: use recipe sft-replay")
    if settings.recipe == "sft-replay":
        replay = draw_replay(replay, len(train), settings.replay_share or 0.0, settings.seed)
    data = hash_questions(train, replay)
    return run_training(settings, data, partial(_build, train, replay), progress=progress)


def _build(
    train: Sequence[Question], replay: Sequence[Question], frame: Frame
) -> tuple[Any, Mapping[str, Any]]:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig

    from forgetguard.recipes.training.models import frozen_base, load_trainable, lora
    from forgetguard.recipes.training.rows import collate, encode
    from forgetguard.recipes.training.supervised_trainer import SupervisedTrainer

    settings = frame.settings
    model, tokenizer = load_trainable(settings)
    sets = [encode(train, tokenizer, settings.max_length, "training")]
    if replay:
        sets.append(encode(replay, tokenizer, settings.max_length, "replayed"))
    columns, notes = _columns(sets)
    if settings.recipe == "sft-flow":
        columns["weight"], found = _flow(settings, model, columns, tokenizer.pad_token_id)
        notes |= found
    trainer = SupervisedTrainer(
        settings=settings,
        base=frozen_base(settings) if settings.recipe in ("sft-kl", "sft-circuit") else None,
        model=model,
        args=SFTConfig(
            **frame.arguments,
            completion_only_loss=True,
            max_length=None,  # rows that are too long have been left out, none is cut
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_dict(columns),
        data_collator=partial(collate, padding=tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=lora(settings.adapter),
        callbacks=list(frame.callbacks),
    )
    return trainer, notes


def _columns(sets: Sequence[Rows]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """What is trained on, by column, and what the run card notes of it."""
    rows = [row for one in sets for row in one.rows]
    new = len(sets[0].rows)
    columns = {
        "input_ids": [list(row.ids) for row in rows],
        "labels": [list(row.labels) for row in rows],
    }
    notes = {
        "rows": new,
        "left_out_too_long": sum(one.too_long for one in sets),
        "left_out_merged": sum(one.merged for one in sets),
    }
    if len(sets) > 1:
        columns["replayed"] = [at >= new for at in range(len(rows))]  # type: ignore[misc]
        notes["replayed_rows"] = len(rows) - new
    return columns, notes


def _flow(
    settings: TrainingSettings, model: Any, columns: Mapping[str, list[Any]], padding: int
) -> tuple[list[float], dict[str, Any]]:
    """Each row's weight from its loss under the model, which is still the base; and the notes."""
    from forgetguard.recipes.losses.flow_weights import (
        easy_sample_weights,
        effective_samples,
        median_tau,
    )
    from forgetguard.recipes.training.supervised_trainer import base_losses

    losses = base_losses(model, columns, padding, settings.micro_batch or settings.batch)
    tau = settings.flow_tau or median_tau(losses)
    weights = easy_sample_weights(losses, tau)
    notes = {"flow_tau": tau, "flow_effective_rows": effective_samples(weights)}
    return weights.tolist(), notes
