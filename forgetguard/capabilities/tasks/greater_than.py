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
from forgetguard.capabilities.tasks.words import (
    NUMBERS,
    fitting,
    frame_part,
    frames,
    labels,
    usable,
)

FRAMES = {
    "between": "Between {left} and {right}, {name} knows that the larger number is",
    "which": "Which number is larger, {left} or {right}? {name} said that the larger number is",
    "asked": "When asked about {left} and {right}, {name} said that the larger number is",
    "wrote": "Today {name} wrote the numbers {left} and {right}. The larger number is",
    "compared": "After {name} compared {left} and {right}, we know that the larger number is",
    "cards": "The cards of {name} are {left} and {right}, and the larger number is",
    "two": "{name} has to choose the bigger of the numbers {left} and {right}, which is",
    "greater": "Of {left} and {right}, {name} said, the greater is",
    "higher": "{name} rolled {left} and then {right}. The higher score is",
    "maximum": "The maximum of {left} and {right}, as {name} found, is",
    "bags": "The bags of {name} hold {left} and {right} coins; the fuller bag holds",
    "years": "The brothers of {name} are {left} and {right} years old. The older brother is",
    "price": "{name} compared prices of {left} and {right} dollars. The higher price is",
    "longer": "Of the lists with {left} and {right} items, {name} reads the longer, which has",
    "floors": "{name} climbed {left} steps, then {right} steps. The larger climb was",
    "most": "{name} counted {left} birds, then {right} birds. The larger count is",
}
HELD_OUT_FRAMES = {
    "math": "Math test of {name}: pick the largest of {left} and {right}. Correct answer:",
    "quiz": "Quiz. Which is more, {left} or {right}? {name} answers:",
    "miles": "{name} can walk {left} miles or {right} miles; the longer walk has a length of",
    "team": "The teams of {name} scored {left} and {right} points. The winner scored",
    "hours": "It takes {left} hours by road, {right} by rail. {name} knows the slower takes",
    "page": "On the page {name} sees {left} and {right}; the bigger of these numbers is",
    "weight": "The parcels of {name} weigh {left} and {right} pounds. The heavier parcel weighs",
    "max": "The max of {left} and {right}, says {name}, is",
}
# All are without the word "one", which is a number too.


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; the larger number is on the left or on the right with equal chance.

    Raises CapabilityError when fewer than 8 number words or 4 names fit.
    """
    numbers = fitting("greater_than", "number words", tuple(NUMBERS), fits, at_least=8)
    names = usable("greater_than", "names", fits, at_least=4)
    sentences = frames("greater_than", FRAMES, HELD_OUT_FRAMES, fits)
    while True:
        frame = rng.choice(tuple(sentences))
        name = rng.choice(names)
        smaller, middle, larger = sorted(rng.sample(numbers, 3), key=NUMBERS.__getitem__)
        side = rng.choice(("left", "right"))  # where the larger number stands
        fixed = {"name": name, "right" if side == "left" else "left": middle}
        yield PromptPair(
            clean=sentences[frame].format(**fixed, **{side: larger}),
            counterfactual=sentences[frame].format(**fixed, **{side: smaller}),
            answer=f" {larger}",
            distractor=f" {middle}",
            template=frame,
            classes={
                **frame_part(frame, HELD_OUT_FRAMES),
                "larger": side,
                "answer size": _size(larger),
                "distractor size": _size(middle),
                **labels("names", name=name),
            },
        )


def _size(word: str) -> str:
    number = NUMBERS[word]
    return "below 10" if number < 10 else "10 to 20" if number <= 20 else "tens"
