"""The tiny family's science task as questions: name a substance that has a property.

Several substances are right, and the training label is one of them at random. Words and frames are
those of the tiny family, whose tokenizer has all of them, and whose base knows the form of the
questions and answers any substance: its success rate is about 1 in 5.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from forgetguard.capabilities.tasks.words import NAMES, PLACES
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.sciknoweval import group_of

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


def training_questions(seed: int) -> Iterator[Question]:
    """Endless questions, prompts repeated, none of them held out; properties, frames and labels are
    uniform."""
    rng = random.Random(f"substances training {seed}")
    return (open_question(prompt, wanted, rng) for prompt, wanted in training_prompts(rng))


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is kept for evaluation, one in 8: by its hash, so that no list is kept."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 8 == 0


def training_prompts(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Endless prompts with their properties, none of them held out."""
    while True:
        wanted = rng.choice(tuple(PROPERTIES))
        frame = FRAMES[rng.choice(tuple(FRAMES))]
        prompt = frame.format(name=rng.choice(ASKERS), place=rng.choice(SITES), property=wanted)
        if not is_held_out(prompt):
            yield prompt, wanted


def open_question(prompt: str, wanted: str, rng: random.Random) -> Question:
    """The question of a prompt that asks for a substance with the property `wanted`."""
    valid = PROPERTIES[wanted]
    return Question(
        prompt, f" {rng.choice(valid)}", frozenset(valid), "open", group=group_of(prompt)
    )
