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
from forgetguard.capabilities.tasks.words import frame_part, frames, labels, place_of, usable


@dataclass(frozen=True, slots=True)
class Frame:
    """How facts (a comma between two) and the question about one of them are worded, and the lists
    (words.LISTS) that their words come from."""

    opening: str
    fact: str
    question: str
    keys: str
    values: str

    @property
    def texts(self) -> tuple[str, ...]:
        return self.opening, self.fact, self.question


def _table(text: str) -> dict[str, Frame]:
    """Frames by name, from lines of name|lists of keys and values|opening|fact|question."""
    rows = (line.strip().split("|") for line in text.strip().splitlines())
    return {
        name: Frame(opening, f" {fact}", f". {question}", *kinds.split())
        for name, kinds, opening, fact, question in rows
    }


FRAMES = _table(
    """
    locations|objects places|Remember:|the {key} is in the {value}|The {key} is in the
    owners|names objects|Remember:|{key} has the {value}|We know that {key} has the
    colors|objects colors|Look:|the {key} is {value}|So the {key} is
    visits|names places|Today|{key} is at the {value}|You can find {key} at the
    codes|nouns colors|Codes:|{key} = {value}|Then {key} =
    pairs|names nouns|Pairs:|{key} = {value}|And {key} =
    jobs|names places|Facts:|{key} works at the {value}|So {key} works at the
    gifts|names objects|For the holidays|{key} wants a {value}|As you know, {key} wants a
    keeps|names objects|Notes:|{key} keeps the {value}|It is known that {key} keeps the
    doors|objects colors|Listen:|the {key} was painted {value}|The color of the {key} is
    arrows|nouns objects|Table:|{key} -> {value}|Again: {key} ->
    colon|nouns places|Settings:|{key}: {value}|Setting {key}:
    waits|names places|Tonight|{key} waits near the {value}|So look for {key} near the
    left|objects places|Yesterday|the {key} was left at the {value}|To get the {key}, go to the
    likes|names colors|It is said that|{key} likes the color {value}|The favorite color of {key} is
    stands|objects nouns|Plan:|the {key} stands behind the {value}|Look for the {key} behind the
    """
)
HELD_OUT_FRAMES = _table(
    """
    lost|names objects|This week|{key} lost the {value}|Sadly, {key} lost the
    lives|names places|Addresses:|{key} lives by the {value}|Write to {key} by the
    maps|nouns objects|Dictionary:|{key} means {value}|Here {key} means
    team|names colors|Teams:|{key} plays for {value}|This season {key} plays for
    hidden|objects places|Secret:|the {key} is hidden at the {value}|Nobody finds the {key} at the
    labels|nouns colors|Labels:|{key} # {value}|Label of {key} #
    drew|names nouns|In the lesson|{key} drew a {value}|Afterwards {key} showed a
    sold|objects places|Sales:|the {key} came from the {value}|We bought the {key} from the
    """
)
SIZES = (3, 4, 5)  # facts stated in a prompt


def generate(
    rng: random.Random, fits: Callable[[str], int], *, sizes: Sequence[int] = SIZES
) -> Iterator[PromptPair]:
    """Endless pairs; the fact asked for, and the counterfactual's, are uniform over their places.
    `sizes` are numbers of stated facts, each from 2 to 6.

    Raises CapabilityError when fewer than 6 names, places, objects, colors or nouns fit.
    """
    left = {
        kind: usable("key_value", kind, fits, at_least=6)
        for kind in ("names", "places", "objects", "colors", "nouns")
    }
    worded = frames("key_value", FRAMES, HELD_OUT_FRAMES, fits, lambda frame: frame.texts)
    while True:
        name = rng.choice(tuple(worded))
        frame, size = worded[name], rng.choice(sizes)
        keys = rng.sample(left[frame.keys], size)
        values = rng.sample(left[frame.values], size)
        stated = frame.opening + ",".join(
            frame.fact.format(key=key, value=value) for key, value in zip(keys, values, strict=True)
        )
        asked, other = rng.sample(range(size), 2)
        yield PromptPair(
            clean=stated + frame.question.format(key=keys[asked]),
            counterfactual=stated + frame.question.format(key=keys[other]),
            answer=f" {values[asked]}",
            distractor=f" {values[other]}",
            template=name,
            classes={
                **frame_part(name, HELD_OUT_FRAMES),
                "facts": str(size),
                "answer place": place_of(asked, size),
                **labels(frame.keys, key=keys[asked]),
                **labels(frame.values, answer=values[asked]),
            },
        )
