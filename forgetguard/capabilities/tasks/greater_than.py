"""Task `greater_than`: name the larger of two numbers.

Numbers are written as words, which are one token in most vocabularies where digits are not. Clean
prompts hold a middle and a larger number; the counterfactual replaces the larger one by one that is
smaller than the middle, so that the middle number becomes the answer: one word's difference, and
the distractor stands in both prompts. Which of the two comes first is a fair coin. (After Hanna et
al., arXiv 2305.00586, whose year spans need a tokenizer that splits years in two.) Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import NAMES, NUMBERS, fitting

FRAMES = {
    "between": "Between {left} and {right}, {name} knows that the larger number is",
    "which": "Which number is larger, {left} or {right}? {name} said that the larger number is",
    "asked": "When asked about {left} and {right}, {name} said that the larger number is",
    "wrote": "Today {name} wrote the numbers {left} and {right}. The larger number is",
    "compared": "After {name} compared {left} and {right}, we know that the larger number is",
    "cards": "The cards of {name} are {left} and {right}, and the larger number is",
}  # without the word "one", which is a number too


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; the larger number is on the left or on the right with equal chance.

    Raises CapabilityError when fewer than 8 number words or 4 names fit.
    """
    numbers = fitting("greater_than", "number words", tuple(NUMBERS), fits, at_least=8)
    names = fitting("greater_than", "names", NAMES, fits, at_least=4)
    return _draw(rng, numbers, names)


def _draw(
    rng: random.Random, numbers: tuple[str, ...], names: tuple[str, ...]
) -> Iterator[PromptPair]:
    while True:
        frame = rng.choice(tuple(FRAMES))
        name = rng.choice(names)
        smaller, middle, larger = sorted(rng.sample(numbers, 3), key=NUMBERS.__getitem__)
        side = rng.choice(("left", "right"))  # where the larger number stands
        fixed = {"name": name, "right" if side == "left" else "left": middle}
        yield PromptPair(
            clean=FRAMES[frame].format(**fixed, **{side: larger}),
            counterfactual=FRAMES[frame].format(**fixed, **{side: smaller}),
            answer=f" {larger}",
            distractor=f" {middle}",
            template=f"{frame}-{side}",
        )
