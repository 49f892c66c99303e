"""The new task of the tiny family's fine-tunes: name a substance that has a property.

Several substances are right for each property, and the training label is one of them at random, as
in tasks where a model may answer in many valid ways. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from forgetguard.recipes.data.substances import ASKERS, FRAMES, PROPERTIES, SITES


@dataclass(frozen=True, slots=True)
class Question:
    """One question, one valid answer drawn at random (with its space), and all the valid ones."""

    prompt: str
    answer: str
    valid: frozenset[str]


def questions(rng: random.Random) -> Iterator[Question]:
    """Endless questions; properties, frames and the valid answers of a property are uniform."""
    while True:
        wanted = rng.choice(tuple(PROPERTIES))
        prompt = FRAMES[rng.choice(tuple(FRAMES))].format(
            name=rng.choice(ASKERS), place=rng.choice(SITES), property=wanted
        )
        valid = PROPERTIES[wanted]
        yield Question(
            prompt, f" {rng.choice(valid)}", frozenset(f" {substance}" for substance in valid)
        )
