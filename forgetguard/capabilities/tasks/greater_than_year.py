"""Task `greater_than_year`: a war cannot end before it began (Hanna et al., arXiv 2305.00586).

"The war lasted from the year 1732 to the year 17" continues with a number above 32. Every later
year is right and every earlier one wrong: readout log_odds takes the total probability of both, as
the paper does (which takes their difference). The counterfactual starts in 1701, where every number
is right: its distractors, numbers below the clean start, are then right as well.

Written as the tokenizer has it: years in two tokens of two digits (GPT-2); years digit by digit
(Llama 2, Qwen, Gemma), where the tens digit decides and a year of the start's own decade, which may
be either, is left out; and where three digits are one token (Llama 3, DeepSeek, gpt-oss) years of
two digits after an apostrophe, "from the year '32 to the year '". Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import Fits, frame_part, frames
from forgetguard.errors import CapabilityError

THINGS = tuple(
    """war project trial campaign marriage journey battle siege conflict strike tour voyage mission
    study reign peace crisis alliance program dispute struggle operation expedition friendship
    tradition construction rebellion debate drought research""".split()
)
CENTURIES = ("11", "12", "13", "14", "15", "16", "17", "18")
APOSTROPHE = "'"
ENDINGS = tuple(f"{year:02d}" for year in range(1, 100))
DIGITS = tuple("0123456789")
FIRST = "01"  # the counterfactual's start
FEWEST = 2  # valid and invalid answers of a pair
FRAMES = {
    "lasted": "The {thing} lasted from the year {start} to the year {century}",
    "began": "The {thing} began in the year {start} and ended in the year {century}",
    "took": "The {thing} took place between the year {start} and the year {century}",
    "started": "The {thing} started in the year {start} and was over in the year {century}",
    "ran": "The {thing} ran from the year {start} until the year {century}",
    "first": "The first {thing} was in the year {start}, the second in the year {century}",
    "since": "Since the {thing} began in the year {start}, it was finished in the year {century}",
    "after": "After the {thing} of the year {start} came another in the year {century}",
    "history": "Books say that the {thing} went on from the year {start} to the year {century}",
    "opened": "The {thing} opened in the year {start} and closed in the year {century}",
    "record": "According to records, the {thing} spanned the year {start} to the year {century}",
    "launched": "They launched the {thing} in the year {start} and ended it in the year {century}",
    "planned": "The {thing} was planned in the year {start} and completed in the year {century}",
    "dates": "Dates of the {thing}: from the year {start} to the year {century}",
    "entry": "Entry: the {thing}, begun in the year {start}, concluded in the year {century}",
    "grew": "The {thing} grew from the year {start} on and declined by the year {century}",
}
HELD_OUT_FRAMES = {
    "continued": "Begun in the year {start}, the {thing} continued until the year {century}",
    "recalled": "The {thing} of the year {start} was still recalled in the year {century}",
    "period": "The period of the {thing} is the year {start} to the year {century}",
    "timeline": "Timeline of the {thing}. Start: the year {start}. End: the year {century}",
    "broke": "The {thing} broke out in the year {start} and stopped in the year {century}",
    "went": "In the year {start} the {thing} came up, and it went away in the year {century}",
    "stretched": "The {thing} stretched from the year {start} to the year {century}",
    "founded": "Known from the year {start}, the {thing} was forgotten by the year {century}",
}


class _Start(NamedTuple):
    """A start year's last two digits, and what continues a later and an earlier year."""

    ending: str
    later: tuple[str, ...]
    earlier: tuple[str, ...]


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Endless pairs; the century and the start year are uniform over those that fit, and the
    answer and the distractor that stand for the others over the pair's.

    Raises CapabilityError when the tokenizer has years in none of the three ways.
    """
    centuries = {one: found for one in CENTURIES if len(found := _starts(one, fits)) >= 30}
    short = _starts(APOSTROPHE, fits)
    starts = centuries or ({APOSTROPHE: short} if len(short) >= 30 else {})
    if not starts:
        raise CapabilityError(
            "Task 'greater_than_year': this tokenizer has years neither in two tokens of two "
            "digits nor digit by digit, nor two-digit years after an apostrophe. Choose task "
            "greater_than, which writes numbers as words."
        )
    sentences = frames("greater_than_year", FRAMES, HELD_OUT_FRAMES, fits)
    while True:
        frame, thing = rng.choice(tuple(sentences)), rng.choice(THINGS)
        century = rng.choice(tuple(starts))
        start = rng.choice(starts[century])
        answer, *answers = rng.sample(start.later, len(start.later))
        distractor, *distractors = rng.sample(start.earlier, len(start.earlier))
        slots = {"thing": thing, "century": century}
        yield PromptPair(
            clean=sentences[frame].format(**slots, start=century + start.ending),
            counterfactual=sentences[frame].format(**slots, start=century + FIRST),
            answer=answer,
            distractor=distractor,
            template=frame,
            classes={
                **frame_part(frame, HELD_OUT_FRAMES),
                "century": century,
                "start": "first half" if start.ending < "50" else "second half",
            },
            answers=tuple(sorted(answers)),
            distractors=tuple(sorted(distractors)),
        )


def _starts(century: str, fits: Fits) -> list[_Start]:
    """The start years that can be told from 01 behind these digits, with their answers."""
    before = f"the year {century}"
    whole = tuple(one for one in ENDINGS if fits(one, before) == 1)
    if FIRST in whole and len(whole) >= 60:
        # The century itself stands in the prompt, and would be an answer too.
        options, starts = tuple(one for one in whole if one not in (FIRST, century)), whole[1:]
    elif all(fits(digit, before) == 1 and fits(digit, before + "0") == 1 for digit in DIGITS):
        options, starts = DIGITS, ENDINGS[1:]
    else:
        return []
    size = len(options[0])
    found = []
    for ending in starts:
        later = tuple(one for one in options if one > ending[:size])
        earlier = tuple(one for one in options if one < ending[:size])
        if min(len(later), len(earlier)) >= FEWEST:
            found.append(_Start(ending, later, earlier))
    return found
