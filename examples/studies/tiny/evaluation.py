"""Measure a tiny checkpoint on held-out prompts, each alone, from position 0, as the gate does."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from examples.studies.tiny import science
from examples.studies.tiny_prompts import TASKS_OF_TINY, held_out_pairs
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.recipes.data.substances import is_held_out

NEW_TASK = "science"


@dataclass(frozen=True, slots=True)
class Score:
    """Of one capability: the share of prompts whose full-vocabulary argmax is right, and the mean
    logit of the answer minus that of the distractor (None for the new task, which has none)."""

    accuracy: float
    logit_diff: float | None


def measure(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast, *, count: int, seed: int
) -> dict[str, Score]:
    """The scores of every capability and of the new task on `count` held-out prompts each."""
    scores = {}
    for task in TASKS_OF_TINY:
        pairs = _pairs(task, seed, count)
        logits = last_logits(model, tokenizer, [pair.clean for pair in pairs])
        right = _ids(tokenizer, [pair.answer for pair in pairs])
        wrong = _ids(tokenizer, [str(pair.distractor) for pair in pairs])
        rows = torch.arange(count)
        scores[task] = Score(
            (logits.argmax(-1) == right).double().mean().item(),
            (logits[rows, right] - logits[rows, wrong]).double().mean().item(),
        )
    questions = list(islice(held_out_questions(seed), count))
    scores[NEW_TASK] = Score(new_task_accuracy(model, tokenizer, questions), None)
    return scores


@lru_cache(maxsize=16)  # drawing what was held out takes as long as scoring a model on it
def _pairs(task: str, seed: int, count: int) -> tuple[PromptPair, ...]:
    return tuple(islice(held_out_pairs(task, seed), count))


def held_out_questions(seed: int) -> Iterable[science.Question]:
    """Endless questions of the new task that no fine-tuning saw."""
    stream = science.questions(random.Random(f"held out {seed}"))
    return (question for question in stream if is_held_out(question.prompt))


def new_task_accuracy(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[science.Question],
) -> float:
    """The share of questions whose argmax is one of the valid answers; all of it is attainable."""
    logits = last_logits(model, tokenizer, [question.prompt for question in questions])
    said = tokenizer.batch_decode(logits.argmax(-1)[:, None])
    return sum(
        word in question.valid for word, question in zip(said, questions, strict=True)
    ) / len(questions)


@torch.inference_mode()
def last_logits(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]
) -> Float[Tensor, "prompt vocabulary"]:
    """The logits after each prompt's last token; prompts of one length share a batch, unpadded."""
    ids = tokenizer(list(prompts)).input_ids
    by_length = defaultdict(list)
    for row, tokens in enumerate(ids):
        by_length[len(tokens)].append(row)
    logits = torch.empty(len(ids), model.config.vocab_size)
    for rows in by_length.values():
        batch = torch.tensor([ids[row] for row in rows])
        logits[rows] = model(input_ids=batch).logits[:, -1].float()
    return logits


def _ids(tokenizer: PreTrainedTokenizerFast, answers: Sequence[str]) -> Tensor:
    return torch.tensor([one for (one,) in tokenizer(list(answers)).input_ids])
