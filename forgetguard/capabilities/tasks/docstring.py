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
from forgetguard.capabilities.tasks.words import frame_part, frames, labels, usable

FRAMES = {
    "method": "def {function}(self, {arguments}):",
    "function": "def {function}(data, {arguments}):",
    "init": "def __init__(self, {arguments}):",
    "async": "async def {function}(self, {arguments}):",
    "class": "def {function}(cls, {arguments}):",
    "private": "def _{function}(self, {arguments}):",
    "call": "def __call__(self, {arguments}):",
    "get": "def get_{function}(self, {arguments}):",
    "set": "def set_{function}(self, {arguments}):",
    "make": "def make_{function}({arguments}):",
    "none": "def {function}(self, {arguments}) -> None:",
    "str": "def {function}(self, {arguments}) -> str:",
    "lines": "import os\n\n\ndef {function}({arguments}):",
    "static": "@staticmethod\ndef {function}({arguments}):",
    "cached": "@cache\ndef {function}(self, {arguments}):",
    "test": "def test_{function}(self, {arguments}):",
}
HELD_OUT_FRAMES = {
    "classmethod": "@classmethod\ndef {function}(cls, {arguments}):",
    "compute": "def compute_{function}(data, {arguments}):",
    "bool": "def is_{function}(self, {arguments}) -> bool:",
    "new": "def __new__(cls, {arguments}):",
    "abstract": "@abstractmethod\ndef {function}(self, {arguments}):",
    "context": "def {function}(context, {arguments}):",
    "plain": "def {function}({arguments}):",
    "load": "async def load_{function}({arguments}):",
}
DOCUMENTED = (1, 2, 3)  # arguments before the one that is asked for
REST = (2, 3)  # arguments still to be documented, the one that is asked for among them


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; how many arguments there are, and which is asked for, are uniform.

    Raises CapabilityError when fewer than 24 words fit.
    """
    words = usable("docstring", "objects nouns", fits, at_least=24)
    definitions = frames("docstring", FRAMES, HELD_OUT_FRAMES, fits)
    while True:
        frame = rng.choice(tuple(definitions))
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
            clean=_definition(definitions[frame], function, arguments) + body,
            counterfactual=_definition(definitions[frame], function, swapped) + body,
            answer=f" {arguments[documented]}",
            distractor=f" {arguments[other]}",
            template=frame,
            classes={
                **frame_part(frame, HELD_OUT_FRAMES),
                "documented": str(documented),
                "left": str(rest),
                **labels("objects nouns", answer=arguments[documented]),
            },
        )


def _definition(frame: str, function: str, arguments: list[str]) -> str:
    return frame.format(function=function, arguments=", ".join(arguments))
