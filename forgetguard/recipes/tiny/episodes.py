"""Training data of the tiny base: the tasks' own text, without what is held out for evaluation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks import TASKS
from forgetguard.recipes.tiny.vocabulary import fits

HELD_OUT = 8  # one prompt in so many is never trained on


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is kept for evaluation: by its hash, so that no list has to be kept."""
    return hashlib.sha256(prompt.encode()).digest()[0] % HELD_OUT == 0


def held_out_pairs(task: str, seed: int) -> Iterator[PromptPair]:
    """Endless pairs of a task that the base has seen neither prompt of, each clean prompt once."""
    seen = set()
    for pair in TASKS[task](random.Random(f"held out {seed}"), fits):
        new = pair.clean not in seen
        if new and is_held_out(pair.clean) and is_held_out(pair.counterfactual):
            seen.add(pair.clean)
            yield pair


def training_texts(task: str, seed: int) -> Iterator[tuple[str, str]]:
    """Endless (prompt, answer) of a task, never a held-out prompt."""
    for pair in TASKS[task](random.Random(f"training {seed}"), fits):
        if not is_held_out(pair.clean):
            yield pair.clean, pair.answer


@dataclass(frozen=True, slots=True)
class Batch:
    """Episodes packed into rows; each sees only itself, at positions that start from 0."""

    ids: Int[Tensor, "row position"]
    positions: Int[Tensor, "row position"]
    mask: Bool[Tensor, "row 1 position position"]
    weights: Float[Tensor, "row position"]  # of predicting the NEXT token
    tasks: Int[Tensor, "row position"]  # which task's answer comes next; -1 elsewhere


class Episodes:
    """Batches drawn from all tasks, in shares that the trainer may change as it goes.

    `other` is the loss weight of tokens that nothing before them determines.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        rows: int,
        length: int,
        other: float,
        seed: int,
    ) -> None:
        self.names = tuple(TASKS)
        self.shares = [1.0 / len(self.names)] * len(self.names)
        self._streams = [training_texts(name, seed) for name in self.names]
        self._rng = random.Random(seed)
        self._tokenizer = tokenizer
        self._rows, self._length, self._other = rows, length, other

    def batch(self) -> Batch:
        """The next batch: episodes placed first-fit until some row can take no more."""
        shape = (self._rows, self._length)
        ids = torch.full(shape, int(self._tokenizer.pad_token_id or 0))
        positions = torch.zeros(shape, dtype=torch.long)
        owner = torch.full(shape, -1)
        weights = torch.zeros(shape)
        tasks = torch.full(shape, -1)
        used = [0] * self._rows
        for number, (task, tokens, worth) in enumerate(self._draw(4 * self._rows)):
            size = len(tokens)
            row = next((r for r, n in enumerate(used) if n + size <= self._length), None)
            if row is None:
                continue
            span = slice(used[row], used[row] + size)
            ids[row, span] = torch.tensor(tokens)
            positions[row, span] = torch.arange(size)
            owner[row, span] = number
            weights[row, span.start : span.stop - 1] = torch.tensor(worth[1:])
            tasks[row, span.stop - 2] = task
            used[row] += size
        causal = torch.ones(self._length, self._length, dtype=torch.bool).tril()
        mask = (owner[:, :, None] == owner[:, None, :]) & causal
        return Batch(ids, positions, mask[:, None], weights, tasks)

    def _draw(self, count: int) -> list[tuple[int, list[int], list[float]]]:
        drawn = self._rng.choices(range(len(self.names)), self.shares, k=count)
        texts = ["".join(next(self._streams[task])) for task in drawn]
        return [
            (task, tokens, self._worth(tokens, self.names[task] == "induction"))
            for task, tokens in zip(drawn, self._tokenizer(texts).input_ids, strict=True)
        ]

    def _worth(self, tokens: list[int], repeats: bool) -> list[float]:
        """The loss weight of each token: 1 where what precedes it determines it."""
        worth = [self._other] * len(tokens)
        worth[-1] = 1.0
        if repeats:
            seen: set[tuple[int, int]] = set()
            for i in range(1, len(tokens)):
                if (tokens[i - 1], tokens[i]) in seen:
                    worth[i] = 1.0
                seen.add((tokens[i - 1], tokens[i]))
        return worth
