"""Task `symbol_binding`: answer an easy multiple-choice question with the letter of the option.

The right option is stated in the prompt, or plain to see (the one color among objects); what is
asked of the model is to bind it to its letter. The counterfactual swaps the right option with a
wrong one: the same words in another order, so that only the letter changes. (After Lieberum et al.,
arXiv 2307.09458, and Wiegreffe et al., arXiv 2407.15018.) Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import (
    COLORS,
    NAMES,
    NUMBERS,
    OBJECTS,
    PLACES,
    Fits,
    fitting,
)

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the words that its right and its wrong options are drawn from."""

    text: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


_NUMBERS = tuple(NUMBERS)
QUESTIONS = {
    "where": Question("The meeting is at the {right}. Where is the meeting?", PLACES, PLACES),
    "what": Question("There is a {right} on the table. What is on the table?", OBJECTS, OBJECTS),
    "who": Question("The winner is {right}. Who is the winner?", NAMES, NAMES),
    "paint": Question("The wall is {right}. What color is the wall?", COLORS, COLORS),
    "code": Question("The code is {right}. What is the code?", _NUMBERS, _NUMBERS),
    "color": Question("Which of these is a color?", COLORS, OBJECTS),
    "name": Question("Which of these is a person's name?", NAMES, PLACES),
    "number": Question("Which of these is a number?", _NUMBERS, OBJECTS),
}
# How options are listed.
LISTS = {
    "dot": "{letter}. {option}",
    "colon": "{letter}: {option}",
    "bracket": "{letter}) {option}",
}


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Endless pairs; the letters of the right option and of the counterfactual's are uniform.

    Raises CapabilityError when a letter does not fit, or fewer than 24 words for options.
    """
    letters = fitting("symbol_binding", "letters", LETTERS, fits, at_least=len(LETTERS))
    words = OBJECTS + PLACES + NAMES + COLORS + _NUMBERS
    # Of 24 words in five lists, some list has five: enough for a question of its own kind.
    left = frozenset(fitting("symbol_binding", "words for options", words, fits, at_least=24))
    questions = {key: _with(question, left) for key, question in QUESTIONS.items()}
    enough = len(LETTERS)
    return _draw(
        rng,
        letters,
        {
            key: question
            for key, question in questions.items()
            if min(len(question.right), len(question.wrong)) >= enough
        },
    )


def _with(question: Question, left: frozenset[str]) -> Question:
    right = tuple(word for word in question.right if word in left)
    wrong = tuple(word for word in question.wrong if word in left)
    return replace(question, right=right, wrong=wrong)


def _draw(
    rng: random.Random, letters: tuple[str, ...], questions: dict[str, Question]
) -> Iterator[PromptPair]:
    while True:
        key, style = rng.choice(tuple(questions)), rng.choice(tuple(LISTS))
        question = questions[key]
        right = rng.choice(question.right)
        wrong = rng.sample([word for word in question.wrong if word != right], len(letters) - 1)
        place, other = rng.sample(range(len(letters)), 2)
        options = [*wrong[:place], right, *wrong[place:]]
        swapped = options.copy()
        swapped[place], swapped[other] = swapped[other], swapped[place]
        asked = question.text.format(right=right)
        yield PromptPair(
            clean=_prompt(asked, style, letters, options),
            counterfactual=_prompt(asked, style, letters, swapped),
            answer=f" {letters[place]}",
            distractor=f" {letters[other]}",
            template=f"{key}-{style}",
        )


def _prompt(asked: str, style: str, letters: tuple[str, ...], options: list[str]) -> str:
    listed = (
        LISTS[style].format(letter=letter, option=option)
        for letter, option in zip(letters, options, strict=True)
    )
    return "\n".join([f"Question: {asked}", *listed, "Answer:"])
