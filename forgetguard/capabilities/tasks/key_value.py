"""Task `key_value`: look up, among several stated facts, the value that belongs to one key.

"The ring is in the park. The book is in the bank. ... The ring is in the" continues with park. The
counterfactual asks for another of the stated keys: one word's difference, and every candidate value
is in both prompts. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import COLORS, NAMES, NOUNS, OBJECTS, PLACES, fitting


@dataclass(frozen=True, slots=True)
class Frame:
    """How facts and the question about one of them are worded, and where their words come from."""

    opening: str
    fact: str
    joint: str
    question: str
    keys: tuple[str, ...]
    values: tuple[str, ...]


FRAMES = {
    "locations": Frame(
        "Remember:", " the {key} is in the {value}", ",", ". The {key} is in the", OBJECTS, PLACES
    ),
    "owners": Frame(
        "Remember:", " {key} has the {value}", ",", ". We know that {key} has the", NAMES, OBJECTS
    ),
    "colors": Frame("Look:", " the {key} is {value}", ",", ". So the {key} is", OBJECTS, COLORS),
    "visits": Frame(
        "Today", " {key} is at the {value}", ",", ". You can find {key} at the", NAMES, PLACES
    ),
    "codes": Frame("Codes:", " {key} = {value}", ",", ". Then {key} =", NOUNS, COLORS),
    "pairs": Frame("Pairs:", " {key} = {value}", ",", ". And {key} =", NAMES, NOUNS),
}
SIZES = (3, 4, 5)  # facts stated in a prompt
_KINDS = {
    NAMES: "names",
    PLACES: "places",
    OBJECTS: "objects",
    COLORS: "colors",
    NOUNS: "nouns",
}


def generate(
    rng: random.Random, fits: Callable[[str], int], *, sizes: Sequence[int] = SIZES
) -> Iterator[PromptPair]:
    """Endless pairs; the fact asked for, and the counterfactual's, are uniform over their places.
    `sizes` are numbers of stated facts, each from 2 to 6.

    Raises CapabilityError when fewer than 6 names, places, objects, colors or nouns fit.
    """
    left = {
        words: fitting("key_value", kind, words, fits, at_least=6) for words, kind in _KINDS.items()
    }
    return _draw(rng, left, sizes)


def _draw(
    rng: random.Random,
    left: dict[tuple[str, ...], tuple[str, ...]],
    sizes: Sequence[int],
) -> Iterator[PromptPair]:
    while True:
        name = rng.choice(tuple(FRAMES))
        frame, size = FRAMES[name], rng.choice(sizes)
        keys = rng.sample(left[frame.keys], size)
        values = rng.sample(left[frame.values], size)
        stated = frame.opening + frame.joint.join(
            frame.fact.format(key=key, value=value) for key, value in zip(keys, values, strict=True)
        )
        asked, other = rng.sample(range(size), 2)
        yield PromptPair(
            clean=stated + frame.question.format(key=keys[asked]),
            counterfactual=stated + frame.question.format(key=keys[other]),
            answer=f" {values[asked]}",
            distractor=f" {values[other]}",
            template=f"{name}-{size}",
        )
