"""Task `repetition`: continue a list of random words that has started to repeat itself.

"List: w1 ... wn wi" continues with w(i+1). In `induction` the answer changes places in the
counterfactual; here it is the asked word wi that changes places with another word of the list. So
the word before the answer differs, and with it what heads see that look at the previous word, the
first half of an induction pair (Olsson et al., arXiv 2209.11895). The answer to the counterfactual
is the word behind the other place. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.induction import FRAMES, HELD_OUT_FRAMES, LENGTHS
from forgetguard.capabilities.tasks.words import Fits, frame_part, frames, labels, place_of, usable


def generate(rng: random.Random, fits: Fits) -> Iterator[PromptPair]:
    """Endless pairs; the asked word's place is uniform.

    Raises CapabilityError when fewer than 24 words fit.
    """
    words = usable("repetition", "objects nouns", fits, at_least=24)
    openings = frames("repetition", FRAMES, HELD_OUT_FRAMES, fits)
    while True:
        frame, length = rng.choice(tuple(openings)), rng.choice(LENGTHS)
        shown = rng.sample(words, length)
        asked = rng.randrange(length - 1)
        # Not beside it: each of the two words keeps the word that follows its place.
        other = rng.choice([i for i in range(length - 1) if abs(i - asked) > 1])
        swapped = shown.copy()
        swapped[asked], swapped[other] = swapped[other], swapped[asked]
        yield PromptPair(
            clean=" ".join([openings[frame], *shown, shown[asked]]),
            counterfactual=" ".join([openings[frame], *swapped, shown[asked]]),
            answer=f" {shown[asked + 1]}",
            distractor=f" {shown[other + 1]}",
            template=f"{frame}-{length}",
            classes={
                **frame_part(frame, HELD_OUT_FRAMES),
                "length": str(length),
                "answer place": place_of(asked + 1, length),
                **labels("objects nouns", answer=shown[asked + 1], asked=shown[asked]),
            },
        )
