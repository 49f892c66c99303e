"""Task `greater_than_year`: a war cannot end before it began (Hanna et al., arXiv 2305.00586).

"The war lasted from the year 1732 to the year 17" continues with a number above 32. The
counterfactual starts in 1701, where every number does: its distractor, a number below the clean
start, is then right as well. Answers and distractors lie within ten of the start year, on either
side of it, so that away from the century's ends a number is as often the one as the other. For
tokenizers that split a year in two, as GPT-2's does most; with one that takes three digits at a
time no pair aligns, and where each digit is a token use readout logprob. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import Fits
from forgetguard.errors import CapabilityError

THINGS = tuple(
    """war project trial campaign marriage journey battle siege conflict strike tour voyage mission
    study reign peace crisis alliance program dispute struggle operation expedition friendship
    tradition construction rebellion debate drought research""".split()
)
CENTURIES = ("11", "12", "13", "14", "15", "16", "17", "18")
ENDINGS = tuple(f"{year:02d}" for year in range(1, 100))
FIRST = "01"  # the counterfactual's start
WITHIN = 10  # years between the start and an answer or a distractor
FRAMES = {
    "lasted": "The {thing} lasted from the year {start} to the year {century}",
    "began": "The {thing} began in the year {start} and ended in the year {century}",
    "took": "The {thing} took place between the year {start} and the year {century}",
}


class _Start(NamedTuple):
    """A start year's last two digits, and those that may end a later and an earlier year."""

    ending: str
    later: tuple[str, ...]
    earlier: tuple[str, ...]


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Endless pairs; the century and the start year are uniform over those that fit.

    Raises CapabilityError when in no century 01 and 30 start years fit.
    """
    starts = {century: _starts(century, fits) for century in CENTURIES}
    usable = {century: found for century, found in starts.items() if len(found) >= 30}
    if not usable:
        raise CapabilityError(
            "Task 'greater_than_year': this tokenizer splits no century's years in two after the "
            'second digit ("17" and "32"), or not into one token each as readout logit_diff needs. '
            "Try readout: logprob (for tokenizers that split digits), or task greater_than, which "
            "writes numbers as words."
        )
    return _draw(rng, usable)


def _starts(century: str, fits: Fits) -> list[_Start]:
    """The start years of a century whose prompts align with 01's."""
    length = fits(FIRST, f"the year {century}")
    after = [one for one in ENDINGS if length and fits(one, f"the year {century}") == length]
    named = [one for one in after if one not in (FIRST, century)]
    found = []
    for ending in after[1:]:
        away = {one: int(one) - int(ending) for one in named}
        later = tuple(one for one in named if 0 < away[one] <= WITHIN)
        earlier = tuple(one for one in named if -WITHIN <= away[one] < 0)
        if later and earlier:
            found.append(_Start(ending, later, earlier))
    return found


def _draw(rng: random.Random, starts: dict[str, list[_Start]]) -> Iterator[PromptPair]:
    while True:
        frame, thing = rng.choice(tuple(FRAMES)), rng.choice(THINGS)
        century = rng.choice(tuple(starts))
        start = rng.choice(starts[century])
        slots = {"thing": thing, "century": century}
        yield PromptPair(
            clean=FRAMES[frame].format(**slots, start=century + start.ending),
            counterfactual=FRAMES[frame].format(**slots, start=century + FIRST),
            answer=rng.choice(start.later),
            distractor=rng.choice(start.earlier),
            template=f"{frame}-{century}",
        )
