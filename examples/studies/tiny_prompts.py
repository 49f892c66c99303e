"""Prompts of the tiny base's own tasks: those that it was trained on, and those held out."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks import (
    fact_recall,
    greater_than,
    indirect_object,
    induction,
    key_value,
    words,
)
from forgetguard.recipes.data import substances
from forgetguard.recipes.data.substances import is_held_out

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

COUNTRIES = tuple(words.LANGUAGES)[:14]
# The words that prompts draw from: the head of each list, and all of the new task's substances. The
# order is that of the tokenizer's ids.
DRAWN = (
    *substances.ASKERS,
    *substances.SITES,
    *words.OBJECTS[:22],
    *words.COLORS[:9],
    *words.NOUNS[:9],
    *substances.SUBSTANCES,
    *words.NUMBERS,
    *COUNTRIES,
    *(words.CAPITALS[country] for country in COUNTRIES),
    *(words.LANGUAGES[country] for country in COUNTRIES),
)
_DRAWN = frozenset(DRAWN)
# The sentence frames that the tiny base was trained on, in the order of the tokenizer's ids: the
# head of each task's, too.
FRAMES: tuple[str, ...] = (
    *tuple(induction.FRAMES.values())[:3],
    *tuple(indirect_object.FRAMES.values())[:8],
    *tuple(greater_than.FRAMES.values())[:6],
    *tuple(fact_recall.FRAMES.values())[:8],
)
KEY_VALUE_FRAMES = tuple(key_value.FRAMES.values())[:6]
_PIECES = r"[A-Za-z]+|[^A-Za-z ]"
_KNOWN = frozenset(
    re.findall(
        _PIECES, " ".join((*FRAMES, *(text for one in KEY_VALUE_FRAMES for text in one.texts)))
    )
)


class _Fits:
    """What a task's generator asks of the tiny tokenizer."""

    def __call__(self, word: str, before: str | None = None, /) -> int:
        """Whether it has a token for " word"."""
        return int(word in _DRAWN)

    def knows(self, text: str) -> bool:
        """Whether it has every piece of a frame's text."""
        return all(piece in _KNOWN for piece in re.findall(_PIECES, text))


fits = _Fits()


# Training adds shorter lists than the tasks ask for: attention has fewer wrong places to leave.
LENGTHS = (5, 5, 5, 6, 6, 7, 8, 9, 10, 11)
SIZES = (2, 2, 2, 3, 3, 4, 5)
# Facts worded so plainly that looking one up is near to induction: a key beside its value, in the
# fact, in the question or in both. Without these the look-up itself was not learned in 1,500 steps.
PLAIN_FACTS = (" {key} {value}", " {key} = {value}")
PLAIN_QUESTIONS = (". {key}", ". {key} =")
PLAIN_SHARE = 0.6  # of key_value's training texts
PLAIN_SIZES = (2, 3, 3, 4, 5)


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
