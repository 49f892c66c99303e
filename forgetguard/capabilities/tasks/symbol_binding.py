"""Tasks `symbol_binding` and `symbol_binding_text`: answer an easy multiple-choice question.

The right option is stated in the prompt, or plain to see (the one color among objects). In
`symbol_binding` the answer is the option's letter; what is asked of the model is to bind the two.
The counterfactual swaps the right option with a wrong one: the same words in another order, so that
only the letter changes. In `symbol_binding_text` the answer is the option's text, for models that
have not learned letters; the counterfactual makes another of the listed options the right one, by
one word of the question. (After Lieberum et al., arXiv 2307.09458, and Wiegreffe et al., arXiv
2407.15018.) Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import Fits, fitting, frame_part, frames, labels, listed
from forgetguard.errors import CapabilityError

LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the lists (words.LISTS) that its right and its wrong options come from."""

    text: str
    right: str
    wrong: str


QUESTIONS = {
    "where": Question("The meeting is at the {right}. Where is the meeting?", "places", "places"),
    "what": Question(
        "There is a {right} on the table. What is on the table?", "objects", "objects"
    ),
    "who": Question("The winner is {right}. Who is the winner?", "names", "names"),
    "paint": Question("The wall is {right}. What color is the wall?", "colors", "colors"),
    "code": Question("The code is {right}. What is the code?", "numbers", "numbers"),
    "color": Question("Which of these is a color?", "colors", "objects"),
    "name": Question("Which of these is a person's name?", "names", "places"),
    "number": Question("Which of these is a number?", "numbers", "objects"),
}
HELD_OUT_QUESTIONS = {
    "called": Question("The dog is called {right}. What is it called?", "names", "names"),
    "lost": Question("Today I lost my {right}. What did I lose?", "objects", "objects"),
    "from": Question("She came from the {right}. Where did she come from?", "places", "places"),
    "count": Question("He counted {right} birds. How many did he count?", "numbers", "numbers"),
}
# How options are listed.
LISTS = {
    "dot": "{letter}. {option}",
    "colon": "{letter}: {option}",
    "bracket": "{letter}) {option}",
}
HELD_OUT_LISTS = {"parentheses": "({letter}) {option}"}


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Answer with the letter of the right option.

    Endless pairs; the letters of the right option and of the counterfactual's are uniform.

    Raises CapabilityError when a letter does not fit, or fewer than 24 words for options.
    """
    fitting("symbol_binding", "letters", LETTERS, fits, at_least=len(LETTERS))
    questions, left = _questions("symbol_binding", fits)
    lists = _lists(fits)
    while True:
        key, style = rng.choice(tuple(questions)), rng.choice(tuple(lists))
        question = questions[key]
        right = rng.choice(left[question.right])
        wrong = rng.sample([one for one in left[question.wrong] if one != right], len(LETTERS) - 1)
        place, other = rng.sample(range(len(LETTERS)), 2)
        options = [*wrong[:place], right, *wrong[place:]]
        swapped = options.copy()
        swapped[place], swapped[other] = swapped[other], swapped[place]
        asked = question.text.format(right=right)
        yield PromptPair(
            clean=_prompt(asked, lists[style], options),
            counterfactual=_prompt(asked, lists[style], swapped),
            answer=f" {LETTERS[place]}",
            distractor=f" {LETTERS[other]}",
            template=f"{key}-{style}",
            classes={
                **frame_part(key, HELD_OUT_QUESTIONS),
                "letter": LETTERS[place],
                "list": style,
                **labels(question.right, right=right),
            },
        )


def generate_text(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Answer with the text of the right option.

    Endless pairs whose question changes; the places of both right options are uniform.

    Raises CapabilityError when fewer than 24 words for options fit.
    """
    asked, left = _questions("symbol_binding_text", fits)
    questions = {key: one for key, one in asked.items() if "{right}" in one.text}
    if not questions:
        raise CapabilityError(
            "Task 'symbol_binding_text': of no list of words four fit this tokenizer. Try the "
            "other readout, or choose another task."
        )
    lists = _lists(fits)
    while True:
        key, style = rng.choice(tuple(questions)), rng.choice(tuple(lists))
        question = questions[key]
        options = rng.sample(left[question.right], len(LETTERS))
        right, other = rng.sample(options, 2)
        yield PromptPair(
            clean=_prompt(question.text.format(right=right), lists[style], options),
            counterfactual=_prompt(question.text.format(right=other), lists[style], options),
            answer=f" {right}",
            distractor=f" {other}",
            template=f"{key}-{style}",
            classes={
                **frame_part(key, HELD_OUT_QUESTIONS),
                "letter": LETTERS[options.index(right)],
                "list": style,
                **labels(question.right, answer=right),
            },
        )


def _lists(fits: Fits) -> dict[str, str]:
    return frames("symbol_binding", LISTS, HELD_OUT_LISTS, fits)


def _questions(task: str, fits: Fits) -> tuple[dict[str, Question], dict[str, tuple[str, ...]]]:
    """The questions with enough options, and what is left of each list of words."""
    kinds = ("objects", "places", "names", "colors", "numbers")
    # Of 24 words in five lists, some list has five: enough for a question of its own kind.
    every = fitting(task, "words for options", listed(" ".join(kinds), fits), fits, at_least=24)
    found = frozenset(every)
    left = {kind: tuple(w for w in listed(kind, fits) if w in found) for kind in kinds}
    known = frames(task, QUESTIONS, HELD_OUT_QUESTIONS, fits, lambda question: (question.text,))
    enough = {
        key: one
        for key, one in known.items()
        if min(len(left[one.right]), len(left[one.wrong])) >= len(LETTERS)
    }
    return enough, left


def _prompt(asked: str, style: str, options: Sequence[str]) -> str:
    rows = (
        style.format(letter=letter, option=option)
        for letter, option in zip(LETTERS, options, strict=True)
    )
    return "\n".join([f"Question: {asked}", *rows, "Answer:"])
