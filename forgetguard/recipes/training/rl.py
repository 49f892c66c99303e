"""Reinforcement by Dr.GRPO, from the base (`rl`) or from an SFT checkpoint (`sft-rl`): `train_rl`.

Torch and TRL are imported only where there is something to train.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from forgetguard.discovery.ranking import Progress
from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.reward import by_prompt, reward_function
from forgetguard.recipes.training.run_card import hash_questions
from forgetguard.recipes.training.running import Frame, run_training
from forgetguard.recipes.training.settings import REINFORCED, TrainingSettings

_KL = (
    "kl_forward is KL(base || model), kl_reverse KL(model || base): exact over the vocabulary, "
    "nats per token, at temperature 1, at the positions of the sampled completions"
)


def train_rl(
    settings: TrainingSettings, train: Sequence[Question], *, progress: Progress | None = None
) -> Path:
    """Train `settings.base` (`sft-rl`: `settings.start`) by Dr.GRPO and return the folder of the
    final weights; `reinforcement_trainer.dr_grpo` gives the loss.

    Each update takes `prompts` prompts, every one of `train` before one comes again, and `group`
    completions of each; with `iterations` above 1 a batch of completions serves for so many
    updates. Rewards are `recipes.data.reward`, on the completion alone. Beside the loss log,
    `rollouts.jsonl` has a line an update (`logs.Rollout`), with the KL to the base, never to
    the start, whatever `beta` is.

    A run that was killed goes on at its last checkpoint and ends with the same weights and log (on
    one device and the CPU, bit for bit); a run that is finished is not repeated.

    An update on a batch whose advantages are all 0 has no gradient (with beta 0), but it still
    moves weights: Adam by its momentum, weight decay by itself. The model drifts on a task that it
    cannot do, or can do already.

    Args:
        settings: of `rl` or `sft-rl`; `save_every` a multiple of `iterations`.
        train: the questions; of those with the same prompt the first.
        progress: told of every step.

    Raises:
        SpecificationError: settings of another recipe or that do not fit each other, no questions,
            one prompt with different right answers, an adapter that is not the start's, rewards
            that are equal within all groups of the first batches (nothing can be learned), an
            output folder that cannot be used or holds another run.
        CapabilityError: prompts that are too long or no tokens at all, a tokenizer without an end
            of sequence.
        CheckpointError: the base or the start cannot be read, the disk is full, the result was
            changed.
        MeasurementError: training diverged.
    """
    if settings.recipe not in REINFORCED:
        raise SpecificationError(
            f"recipe {settings.recipe} does not sample: use one of {', '.join(REINFORCED)}"
        )
    if not train:
        raise SpecificationError("there are no training questions: nothing can be learned")
    every, iterations = settings.save_every, settings.iterations
    if every < settings.steps and every % iterations:
        raise SpecificationError(
            f"save_every is {every}, not a multiple of iterations ({iterations}): a run resumed "
            "amid the updates on one batch of completions would sample others; take "
            f"{math.ceil(every / iterations) * iterations}"
        )
    questions = by_prompt(train)
    return run_training(
        settings, hash_questions(train), partial(_build, questions), progress=progress
    )


def _build(questions: Mapping[str, Question], frame: Frame) -> tuple[Any, Mapping[str, Any]]:
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig

    from forgetguard.recipes.training.models import frozen_base, load_policy, lora
    from forgetguard.recipes.training.reinforcement_trainer import ReinforcementTrainer, dr_grpo

    settings = frame.settings
    policy, tokenizer = load_policy(settings)
    _check_prompts(tuple(questions), tokenizer, settings)
    trainer = ReinforcementTrainer(
        settings=settings,
        base=frozen_base(settings),
        run=Path(frame.arguments["output_dir"]),
        begin=frame.begin,
        model=policy,
        reward_funcs=reward_function(questions),
        args=GRPOConfig(**{**frame.arguments, **dr_grpo(settings)}),
        train_dataset=Dataset.from_dict({"prompt": prompt_order(tuple(questions), settings)}),
        processing_class=tokenizer,
        peft_config=lora(settings.adapter) if settings.recipe == "rl" else None,
        callbacks=list(frame.callbacks),
    )
    means = "its adapter switched off" if settings.adapter else "a frozen copy"
    return trainer, {"prompts": len(questions), "kl": _KL, "kl_base": f"{settings.base}, {means}"}


def prompt_order(prompts: Sequence[str], settings: TrainingSettings) -> list[str]:
    """The prompts of every batch of completions, batch after batch: one permutation of all of them
    after another, by seed. As many as the run takes, so that it is one pass over the data."""
    rng = random.Random(f"prompts {settings.seed}")
    batches = math.ceil(settings.steps / settings.iterations)
    wanted = batches * (settings.prompts or 0)
    order: list[str] = []
    while len(order) < wanted:
        order += rng.sample(prompts, len(prompts))
    return order[:wanted]


def _check_prompts(prompts: Sequence[str], tokenizer: Any, settings: TrainingSettings) -> None:
    if tokenizer.eos_token_id is None:
        raise CapabilityError(
            "the base's tokenizer has no end-of-sequence token, so no completion would end: set "
            "eos_token in its tokenizer_config.json"
        )
    lengths = [len(ids) for ids in tokenizer(text=list(prompts))["input_ids"]]
    empty = sum(length == 0 for length in lengths)
    if empty:
        raise CapabilityError(
            f"{empty} of {len(prompts)} prompts are no tokens at all: look at the first, "
            f"{prompts[lengths.index(0)][:60]!r}"
        )
    room = settings.max_length - (settings.completion_length or 0)
    too_long = sum(length > room for length in lengths)
    if too_long:
        raise CapabilityError(
            f"{too_long} of {len(prompts)} prompts have more than {room} tokens, which is what "
            f"max_length={settings.max_length} leaves beside completion_length="
            f"{settings.completion_length}; the longest has {max(lengths)}: raise max_length, or "
            f"leave these questions out"
        )
