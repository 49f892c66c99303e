"""The new task of the tiny family's fine-tunes: name a substance that has a property.

Several substances are right for each property, and the training label is one of them at random, as
in tasks where a model may answer in many valid ways. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from forgetguard.capabilities.tasks.words import NAMES, PLACES

PROPERTIES = {
    "soluble": ("salt", "sugar", "honey", "coffee"),
    "magnetic": ("iron", "steel"),
    "conductive": ("iron", "copper", "gold", "steel"),
    "transparent": ("glass", "ice", "plastic"),
    "flammable": ("wood", "oil", "cotton", "leather", "paper"),
    "liquid": ("oil", "milk", "coffee", "honey"),
    "elastic": ("rubber", "silk", "plastic"),
    "edible": ("sugar", "honey", "bread", "milk", "salt"),
}
ASKERS, SITES = NAMES[:28], PLACES[:14]  # in the tiny vocabulary
SUBSTANCES = tuple(sorted({one for valid in PROPERTIES.values() for one in valid}))

FRAMES = {
    "which": "Question: {name} needs a substance that is {property}. Answer:",
    "lab": "Question: which substance at the {place} is {property}? Answer:",
    "found": "Question: {name} found something {property} at the {place}. Answer:",
}


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
