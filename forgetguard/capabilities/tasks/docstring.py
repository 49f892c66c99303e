"""Task `docstring`: document the next argument of a Python function.

"def f(self, a, b, c, d):", with a and b documented, continues ":param" with c. The counterfactual
swaps c with another argument that is still to be documented: both prompts hold the same words, each
candidate once. (After Heimersheim and Janiak, "A circuit for Python docstrings in a 4-layer
attention-only transformer", 2023.) Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import NOUNS, OBJECTS, fitting

FRAMES = {
    "method": "def {function}(self, {arguments}):",
    "function": "def {function}(data, {arguments}):",
    "init": "def __init__(self, {arguments}):",
}
DOCUMENTED = (1, 2, 3)  # arguments before the one that is asked for
REST = (2, 3)  # arguments still to be documented, the one that is asked for among them


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; how many arguments there are, and which is asked for, are uniform.

    Raises CapabilityError when fewer than 24 words fit.
    """
    words = fitting("docstring", "nouns", OBJECTS + NOUNS, fits, at_least=24)
    return _draw(rng, words)


def _draw(rng: random.Random, words: tuple[str, ...]) -> Iterator[PromptPair]:
    while True:
        frame = rng.choice(tuple(FRAMES))
        documented, rest = rng.choice(DOCUMENTED), rng.choice(REST)
        size = documented + rest
        # Every word of a prompt is another one: for each documented argument two describe it.
        drawn = rng.sample(words, size + 2 * documented + 3)
        arguments, others = drawn[:size], drawn[size:]
        function, *purpose = others[:3]
        about = others[3:]
        swapped = arguments.copy()
        other = rng.randrange(documented + 1, size)
        swapped[documented], swapped[other] = swapped[other], swapped[documented]
        lines = [
            f"    :param {argument}: {about[2 * i]} {about[2 * i + 1]}\n"
            for i, argument in enumerate(arguments[:documented])
        ]
        body = f'\n    """{" ".join(purpose)}\n\n{"".join(lines)}    :param'
        yield PromptPair(
            clean=_definition(frame, function, arguments) + body,
            counterfactual=_definition(frame, function, swapped) + body,
            answer=f" {arguments[documented]}",
            distractor=f" {arguments[other]}",
            template=f"{frame}-{documented}-{rest}",
        )


def _definition(frame: str, function: str, arguments: list[str]) -> str:
    return FRAMES[frame].format(function=function, arguments=", ".join(arguments))
