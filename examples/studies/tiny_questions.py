"""The tiny family's science task in two variants and three parts, as its fine-tunes are trained and
scored on it.

Of "open" several substances are right and the training label is one of them at random
(forgetguard/recipes/data/substances.py); of "single" one is, and the base is right about 1 in 22.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from typing import Literal

from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.sciknoweval import group_of
from forgetguard.recipes.data.substances import (
    ASKERS,
    FRAMES,
    PROPERTIES,
    SITES,
    SUBSTANCES,
    is_held_out,
    open_question,
    training_prompts,
)

Variant = Literal["open", "single"]
Part = Literal["training", "validation", "evaluation"]

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
    drawn = training_prompts(rng) if part == "training" else _once(rng, part)
    question = open_question if variant == "open" else _single_question
    return (question(prompt, wanted, rng) for prompt, wanted in drawn)


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


def _single_question(prompt: str, wanted: str, rng: random.Random) -> Question:
    valid = (RIGHT[wanted],)
    answer = rng.choice(valid)  # one draw a question, as of "open"
    return Question(prompt, f" {answer}", frozenset(valid), "choice", SUBSTANCES, group_of(prompt))
