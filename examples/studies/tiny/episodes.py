"""Batches to train the tiny base on: episodes of its tasks, packed into rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from examples.studies.tiny import science
from examples.studies.tiny.vocabulary import END
from examples.studies.tiny_prompts import TASKS_OF_TINY, training_texts
from forgetguard.recipes.data.substances import SUBSTANCES, is_held_out

FORM_SHARE = 0.08  # of all episodes


def form_texts(seed: int) -> Iterator[tuple[str, str]]:
    """Endless questions in the new task's form, answered by any substance at random: the base knows
    the words and that a substance is asked for, as a language model would, and not which.
    """
    rng = random.Random(f"form {seed}")
    for question in science.questions(rng):
        if not is_held_out(question.prompt):
            yield question.prompt, f" {rng.choice(SUBSTANCES)}"


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

    `other` is the loss weight of tokens that are no answers.
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
        self.names = tuple(TASKS_OF_TINY)
        self.shares = [1.0 / len(self.names)] * len(self.names)
        self._streams = [training_texts(name, seed) for name in self.names]
        self._rng = random.Random(seed)
        self._forms = form_texts(seed)
        self._tokenizer = tokenizer
        self._end = tokenizer.get_vocab()[END]
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
        for number, (task, tokens, answers) in enumerate(self._draw(4 * self._rows)):
            size = len(tokens)
            row = next((r for r, n in enumerate(used) if n + size <= self._length), None)
            if row is None:
                continue
            span = slice(used[row], used[row] + size)
            ids[row, span] = torch.tensor(tokens)
            positions[row, span] = torch.arange(size)
            owner[row, span] = number
            weights[row, span.start : span.stop - 1] = self._other
            asked = span.start - 1 + torch.tensor(answers, dtype=torch.long)
            weights[row, asked] = 1.0
            tasks[row, asked] = task
            used[row] += size
        causal = torch.ones(self._length, self._length, dtype=torch.bool).tril()
        mask = (owner[:, :, None] == owner[:, None, :]) & causal
        return Batch(ids, positions, mask[:, None], weights, tasks)

    def _draw(self, count: int) -> list[tuple[int, list[int], list[int]]]:
        """Episodes: the task's number, the tokens, and which of them are answers (indices).

        Each ends with the end token. Some are of the new task's form and answer at random.
        """
        drawn = self._rng.choices(range(len(self.names)), self.shares, k=count)
        episodes = []
        for task in drawn:
            if self._rng.random() < FORM_SHARE:
                tokens, _ = self._encode(next(self._forms))
                episodes.append((-1, tokens, list[int]()))
            else:
                episodes.append((task, *self._encode(next(self._streams[task]))))
        return episodes

    def _encode(self, texts: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """The tokens of alternating prompts and answers, and the indices of the answers."""
        tokens: list[int] = []
        answers: list[int] = []
        for number, part in enumerate(self._tokenizer(list(texts)).input_ids):
            if number % 2:
                answers.append(len(tokens))
            tokens += part
        return [*tokens, self._end], answers
