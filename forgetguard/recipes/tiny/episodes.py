"""Training data of the tiny base: the tasks' own text, without what is held out for evaluation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks import (
    fact_recall,
    greater_than,
    indirect_object,
    induction,
    key_value,
    words,
)
from forgetguard.recipes.tiny import science
from forgetguard.recipes.tiny.vocabulary import END, fits

# The tasks that the base is trained on, in the order that its training data are drawn in: the
# shipped bytes depend on both, so forgetguard's other tasks are not among them.
TASKS_OF_TINY: Mapping[
    str, Callable[[random.Random, Callable[[str], int]], Iterator[PromptPair]]
] = {
    "induction": induction.generate,
    "ioi": indirect_object.generate,
    "key_value": key_value.generate,
    "greater_than": greater_than.generate,
    "fact_recall": fact_recall.generate,
}

# Training adds shorter lists than the tasks ask for: attention has fewer wrong places to leave.
LENGTHS = (5, 5, 5, 6, 6, 7, 8, 9, 10, 11)
SIZES = (2, 2, 2, 3, 3, 4, 5)
# Facts worded so plainly that looking one up is near to induction: a key beside its value, in the
# fact, in the question or in both. Without these the look-up itself was not learned in 1,500 steps.
PLAIN_FACTS = (" {key} {value}", " {key} = {value}")
PLAIN_QUESTIONS = (". {key}", ". {key} =")
PLAIN_SHARE = 0.6  # of key_value's training texts
PLAIN_SIZES = (2, 3, 3, 4, 5)
FORM_SHARE = 0.08  # of all episodes
HELD_OUT = 8  # one prompt in so many is never trained on


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is kept for evaluation: by its hash, so that no list has to be kept."""
    return hashlib.sha256(prompt.encode()).digest()[0] % HELD_OUT == 0


def held_out_pairs(task: str, seed: int) -> Iterator[PromptPair]:
    """Endless pairs of a task that the base has seen neither prompt of, each clean prompt once."""
    seen = set()
    for pair in TASKS_OF_TINY[task](random.Random(f"held out {seed}"), fits):
        new = pair.clean not in seen
        if new and is_held_out(pair.clean) and is_held_out(pair.counterfactual):
            seen.add(pair.clean)
            yield pair


def training_texts(task: str, seed: int) -> Iterator[tuple[str, ...]]:
    """Endless (prompt, answer, further prompt, further answer, ...) of a task, never a held-out
    prompt. What follows the first answer is more of the same: it costs few tokens and gives the two
    tasks that are slow to be learned several answers an episode.
    """
    rng = random.Random(f"training {seed}")
    if task == "induction":
        stream = induction.generate(rng, fits, lengths=LENGTHS)
    elif task == "key_value":
        stream = key_value.generate(rng, fits, sizes=SIZES)
    else:
        stream = TASKS_OF_TINY[task](rng, fits)
    for pair in stream:
        if is_held_out(pair.clean) or is_held_out(pair.counterfactual):
            continue
        if task == "induction":
            yield pair.clean, *_rest_of_the_list(pair)
        elif task == "key_value" and pair.distractor is not None:
            plain = tuple(_plain_look_up(rng))
            if rng.random() < PLAIN_SHARE and not is_held_out(plain[0]):
                yield plain
                continue
            question = pair.counterfactual[pair.counterfactual.rindex(". ") :]
            yield pair.clean, pair.answer, question, pair.distractor
        else:
            yield pair.clean, pair.answer


def form_texts(seed: int) -> Iterator[tuple[str, str]]:
    """Endless questions in the new task's form, answered by any substance at random: the base knows
    the words and that a substance is asked for, as a language model would, and not which.
    """
    rng = random.Random(f"form {seed}")
    for question in science.questions(rng):
        if not is_held_out(question.prompt):
            yield question.prompt, f" {rng.choice(science.SUBSTANCES)}"


def _plain_look_up(rng: random.Random) -> Iterator[str]:
    """Facts and two or three questions about them, in training only."""
    keys_from, values_from = rng.sample([_NOUNS, _OBJECTS, _PLACES, _COLORS, _NAMES], 2)
    size = rng.choice(PLAIN_SIZES)
    keys, values = rng.sample(keys_from, size), rng.sample(values_from, size)
    fact, question = rng.choice(PLAIN_FACTS), rng.choice(PLAIN_QUESTIONS)
    prompt = "Codes:" + ",".join(
        fact.format(key=key, value=value) for key, value in zip(keys, values, strict=True)
    )
    for asked in rng.sample(range(size), min(size, 3)):
        yield prompt + question.format(key=keys[asked])
        yield f" {values[asked]}"
        prompt = ""


_NOUNS, _OBJECTS, _PLACES, _COLORS, _NAMES = (
    tuple(word for word in one if fits(word))
    for one in (words.NOUNS, words.OBJECTS, words.PLACES, words.COLORS, words.NAMES)
)


def _rest_of_the_list(pair: PromptPair) -> Iterator[str]:
    """The words from the answer on, to the end of the first copy: each is an answer."""
    listed = pair.clean.split()[1:]
    start = listed.index(pair.answer.strip())
    length = next(i for i, word in enumerate(listed) if word in listed[:i])
    for number, word in enumerate(listed[start:length]):
        yield from ("", f" {word}") if number else (f" {word}",)


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
