"""Task `arithmetic`: add or subtract two two-digit numbers; the result has two digits as well.

"34 + 25 =" continues with 59. The counterfactual has one other operand, and so another result.
Sums and differences are drawn together, so that no result is more frequent than another, and no
result stands in either prompt.

Written as the tokenizer has it: "34 + 25 = 59" where " 59" is one token (GPT-2), "34+25=59" where
59 is one without its space (Llama 3, DeepSeek, gpt-oss). Where each digit is a token (Llama 2,
Qwen, Gemma) the result's first digit is the answer: the two results differ in it, and it is a digit
of neither problem. Light: no torch.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import Fits, fitting, frame_part, frames

NUMBERS = tuple(str(number) for number in range(10, 100))
DIGITS = tuple("0123456789")
BEFORE = "12+34="  # a text after which compact answers are asked for
# {sum} is the problem, with its "="; {worked} another one with its result.
FRAMES = {
    "plain": "Calculate: {sum}",
    "worked": "Calculate: {worked}, {sum}",
    "lines": "Examples:\n {worked}\n {sum}",
    "solve": "Solve: {sum}",
    "sum": "Question: {sum}",
    "homework": "Homework: {worked}; {sum}",
    "exercise": "Exercise. {sum}",
    "know": "We know that {worked}, and so {sum}",
    "test": "Mental arithmetic test: {sum}",
    "given": "If {worked}, then {sum}",
    "correct": "This is correct: {worked}. This too: {sum}",
    "teacher": "The teacher wrote on the board: {sum}",
    "calculator": "Type into the calculator: {sum}",
    "result": "The result is easy to see: {sum}",
    "first": "First: {worked}. Second: {sum}",
    "evaluate": "Evaluate the expression {sum}",
}
HELD_OUT_FRAMES = {
    "compute": "Please compute {sum}",
    "sheet": "Sheet:\n - {worked}\n - {sum}",
    "python": "A line of Python prints {worked}, the next {sum}",
    "quiz": "Quiz, task one: {sum}",
    "because": "{worked} as everyone knows, but {sum}",
    "exam": "From the exam: {worked} and {sum}",
    "kids": "Math for kids: {sum}",
    "add": "Add or subtract. {worked} ... {sum}",
}


class Problem(NamedTuple):
    """Two operands and their sum or difference, as numerals."""

    left: str
    sign: str
    right: str
    result: str


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Endless pairs; problems are uniform among those whose numbers fit, and so is which operand
    changes.

    Raises CapabilityError when fewer than 60 of the 90 two-digit numbers fit in any way.
    """
    sentences = frames("arithmetic", FRAMES, HELD_OUT_FRAMES, fits)
    for space, before in ((" ", None), ("", BEFORE)):
        whole = [number for number in NUMBERS if fits(number, before) == 1]
        if len(whole) >= 60:
            return _draw(rng, sentences, _problems(whole), space, digits=False)
    split = [number for number in NUMBERS if fits(number, BEFORE) != 1]
    if len(split) >= 60 and all(fits(digit, BEFORE) == 1 for digit in DIGITS):
        return _draw(rng, sentences, _problems(split), "", digits=True)
    several = fitting(
        "arithmetic", "two-digit numbers", NUMBERS, lambda n: fits(n, BEFORE), at_least=60
    )
    return _draw(rng, sentences, _problems(several), "", digits=False)


def _problems(numbers: Sequence[str]) -> tuple[Problem, ...]:
    """Every sum and difference of two numbers that is one of the numbers, and neither operand."""
    known = frozenset(numbers)
    every = (
        Problem(a, sign, b, str(int(a) + int(b) if sign == "+" else int(a) - int(b)))
        for sign in "+-"
        for a in numbers
        for b in numbers
    )
    return tuple(one for one in every if one.result in known and one.result != one.right)


def _draw(
    rng: random.Random,
    sentences: Mapping[str, str],
    problems: tuple[Problem, ...],
    space: str,
    digits: bool,
) -> Iterator[PromptPair]:
    sharing = defaultdict(list)
    for problem in problems:
        sharing["left", problem.sign, problem.left].append(problem)
        sharing["right", problem.sign, problem.right].append(problem)
    while True:
        key = rng.choice(tuple(sentences))
        asked, worked = rng.sample(problems, 2)
        kept = rng.choice(("left", "right"))  # the operand that both prompts share
        other = rng.choice(sharing[kept, asked.sign, getattr(asked, kept)])
        clash = {worked.left, worked.right, worked.result} & {*asked, *other}
        if clash or not _apart(asked, other):
            continue
        if digits and not _apart_in_digits(asked, other):
            continue
        size = 1 if digits else 2
        equals = f"{space}={space}"
        slots = {"worked": f"{_written(worked, space)}{equals}{worked.result}"}
        yield PromptPair(
            clean=sentences[key].format(**slots, sum=f"{_written(asked, space)}{space}="),
            counterfactual=sentences[key].format(**slots, sum=f"{_written(other, space)}{space}="),
            answer=space + asked.result[:size],
            distractor=space + other.result[:size],
            template=key,
            classes={
                **frame_part(key, HELD_OUT_FRAMES),
                "sign": asked.sign,
                "shared operand": kept,
                "carry": "yes" if _carries(asked) else "no",
            },
        )


def _carries(one: Problem) -> bool:
    """Whether the last digits make or need a ten."""
    if one.sign == "+":
        return int(one.left[-1]) + int(one.right[-1]) > 9
    return one.left[-1] < one.right[-1]


def _apart(one: Problem, other: Problem) -> bool:
    """Whether the results differ and neither stands in the other problem."""
    return (
        one.result != other.result
        and one.result not in (other.left, other.right)
        and other.result not in (one.left, one.right)
    )


def _apart_in_digits(one: Problem, other: Problem) -> bool:
    """Whether the results' first digits differ and neither is a digit of either problem."""
    first, second = one.result[0], other.result[0]
    written = f"{one.left}{one.right}{other.left}{other.right}"
    return first != second and first not in written and second not in written


def _written(problem: Problem, space: str) -> str:
    return f"{problem.left}{space}{problem.sign}{space}{problem.right}"
