"""Task `arithmetic`: add or subtract two two-digit numbers; the result has two digits as well.

"34 + 25 =" continues with 59. The counterfactual has one other operand, and so another result.
Sums and differences are drawn together, so that no result is more frequent than another, and no
result stands in either prompt. Where " 59" is one token (GPT-2) the spaced frames are used; where
59 is one only without its space (Llama 3) the compact ones, "34+25="; where digits are tokens
(Qwen, Gemma) use readout logprob. Light: no torch.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import Fits, fitting
from forgetguard.errors import CapabilityError

NUMBERS = tuple(str(number) for number in range(10, 100))
# {sum} is the problem; {worked} another one with its result, which small models need to see.
SPACED = {
    "plain": "Calculate: {sum} =",
    "asked": "Question: what is {sum}? Answer:",
    "worked": "Calculate: {worked}, {sum} =",
    "lines": "Examples:\n {worked}\n {sum} =",
}
COMPACT = {
    "compact": "Calculate: {sum}=",
    "compact-worked": "Calculate: {worked}, {sum}=",
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

    Raises CapabilityError when fewer than 60 of the 90 two-digit numbers fit.
    """
    frames = SPACED
    try:
        numbers = fitting("arithmetic", "two-digit numbers", NUMBERS, fits, at_least=60)
    except CapabilityError:
        frames = COMPACT
        numbers = fitting(
            "arithmetic", "two-digit numbers", NUMBERS, lambda n: fits(n, "12+34="), at_least=60
        )
    return _draw(rng, frames, _problems(numbers))


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
    rng: random.Random, frames: Mapping[str, str], problems: tuple[Problem, ...]
) -> Iterator[PromptPair]:
    space = " " if frames is SPACED else ""
    sharing = defaultdict(list)
    for problem in problems:
        sharing["left", problem.sign, problem.left].append(problem)
        sharing["right", problem.sign, problem.right].append(problem)
    while True:
        key = rng.choice(tuple(frames))
        asked, worked = rng.sample(problems, 2)
        kept = rng.choice(("left", "right"))  # the operand that both prompts share
        other = rng.choice(sharing[kept, asked.sign, getattr(asked, kept)])
        clash = {worked.left, worked.right, worked.result} & {*asked, *other}
        if clash or not _apart(asked, other):
            continue
        slots = {"worked": f"{_written(worked, space)}{space}={space}{worked.result}"}
        yield PromptPair(
            clean=frames[key].format(**slots, sum=_written(asked, space)),
            counterfactual=frames[key].format(**slots, sum=_written(other, space)),
            answer=space + asked.result,
            distractor=space + other.result,
            template=f"{key}{asked.sign}",
        )


def _apart(one: Problem, other: Problem) -> bool:
    """Whether the results differ and neither stands in the other problem."""
    return (
        one.result != other.result
        and one.result not in (other.left, other.right)
        and other.result not in (one.left, one.right)
    )


def _written(problem: Problem, space: str) -> str:
    return f"{problem.left}{space}{problem.sign}{space}{problem.right}"
