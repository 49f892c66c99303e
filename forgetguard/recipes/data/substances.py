"""The tiny family's science task as questions: name a substance that has a property.

Two variants: "open", where several substances are right and the training label is one of them at
random, and "single", where one is. Words and frames are those of the tiny family, whose tokenizer
has all of them, and whose base knows the form of the questions and answers any substance: its
success rate is about 1 in 5 on "open" and 1 in 22 on "single".
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import product
from typing import Literal

from forgetguard.capabilities.tasks.words import NAMES, PLACES
from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.sciknoweval import group_of

Variant = Literal["open", "single"]
Part = Literal["training", "validation", "evaluation"]

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

# The one right answer of "single": a valid one, no substance twice.
RIGHT = {
    "soluble": "salt",
    "magnetic": "iron",
    "conductive": "copper",
    "transparent": "glass",
    "flammable": "wood",
    "liquid": "oil",
    "elastic": "rubber",
    "edible": "sugar",
}


def stream(variant: Variant, part: Part, seed: int) -> Iterator[Question]:
    """Questions of a part; no prompt of one part is in another, whatever the seeds.

    Training is endless and repeats prompts; properties, frames and "open" labels are uniform.
    Validation and evaluation are the prompts that the base and its fine-tunes never saw, half of
    them each, every prompt once in an order by seed: 200 or more questions, then they end.

    Raises:
        SpecificationError: no such variant or part.
    """
    if variant not in ("open", "single"):
        raise SpecificationError(f"variant is {variant!r}: known: open, single")
    if part not in ("training", "validation", "evaluation"):
        raise SpecificationError(f"part is {part!r}: known: training, validation, evaluation")
    rng = random.Random(f"substances {part} {seed}")
    drawn = _training(rng) if part == "training" else _once(rng, part)
    return (_question(prompt, wanted, variant, rng) for prompt, wanted in drawn)


def is_held_out(prompt: str) -> bool:
    """Whether a prompt is kept for evaluation, one in 8: by its hash, so that no list is kept."""
    return hashlib.sha256(prompt.encode()).digest()[0] % 8 == 0


def _training(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Endless prompts with their properties, none of them held out."""
    while True:
        wanted = rng.choice(tuple(PROPERTIES))
        frame = FRAMES[rng.choice(tuple(FRAMES))]
        prompt = frame.format(name=rng.choice(ASKERS), place=rng.choice(SITES), property=wanted)
        if not is_held_out(prompt):
            yield prompt, wanted


def _once(rng: random.Random, part: Part) -> Iterator[tuple[str, str]]:
    """Each held-out prompt of a part with its property, frames in turn as long as they last."""
    by_frame = {}
    for key, frame in FRAMES.items():
        prompts = {
            frame.format(name=name, place=place, property=wanted): wanted
            for name, place, wanted in product(ASKERS, SITES, PROPERTIES)
        }
        kept = [
            (prompt, wanted)
            for prompt, wanted in prompts.items()
            if is_held_out(prompt) and _is_for_validation(prompt) == (part == "validation")
        ]
        rng.shuffle(kept)
        by_frame[key] = kept
    while any(by_frame.values()):
        for kept in by_frame.values():
            if kept:
                yield kept.pop()


def _is_for_validation(prompt: str) -> bool:
    return int(group_of(prompt), 16) % 2 == 0


def _question(prompt: str, wanted: str, variant: Variant, rng: random.Random) -> Question:
    if variant == "single":
        valid: tuple[str, ...] = (RIGHT[wanted],)
        kind, options = "choice", SUBSTANCES
    else:
        valid, kind, options = PROPERTIES[wanted], "open", ()
    return Question(
        prompt, f" {rng.choice(valid)}", frozenset(valid), kind, options, group_of(prompt)
    )
