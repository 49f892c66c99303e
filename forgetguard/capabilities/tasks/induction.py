"""Task `induction`: continue a list of random words that has started to repeat itself.

"List: w1 ... wn wi ... wj" continues with w(j+1), the word that followed wj before. In the
counterfactual w(j+1) has changed places with another word of the first copy: both prompts hold the
same words, so neither a word's presence nor its frequency gives the answer. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import frame_part, frames, labels, place_of, usable

FRAMES = {
    "list": "List:", "words": "Words:", "sequence": "Sequence:", "items": "Items:", "series":
    "Series:", "terms": "Terms:", "tokens": "Tokens:", "entries": "Entries:", "row": "Row:",
    "text": "Text:", "input": "Input:", "memory": "Memory:", "notes": "Notes:", "data": "Data:",
    "vocabulary": "Vocabulary:", "order": "Order:",
}  # fmt: skip
HELD_OUT_FRAMES = {
    "repeat": "Repeat:", "stream": "Stream:", "output": "Output:", "content": "Content:",
    "nouns": "Nouns:", "chain": "Chain:", "line": "Line:", "inventory": "Inventory:",
}  # fmt: skip
LENGTHS = (8, 9, 10)  # words in the first copy
REPEATED = (1, 2, 3)  # words in the second copy, before the answer


def generate(
    rng: random.Random, fits: Callable[[str], int], *, lengths: Sequence[int] = LENGTHS
) -> Iterator[PromptPair]:
    """Endless pairs; the answer's place in the first copy is uniform. `lengths` are those of the
    first copy, each 5 or more.

    Raises CapabilityError when fewer than 24 words fit.
    """
    words = usable("induction", "objects nouns", fits, at_least=24)
    openings = frames("induction", FRAMES, HELD_OUT_FRAMES, fits)
    while True:
        frame = rng.choice(tuple(openings))
        length, repeated = rng.choice(lengths), rng.choice(REPEATED)
        first = rng.sample(words, length)
        place = rng.randrange(repeated, length)  # of the answer
        second = first[place - repeated : place]
        kept = range(place - repeated, place + 1)  # the copied words and the answer
        other = rng.choice([i for i in range(length) if i not in kept])
        swapped = first.copy()
        swapped[place], swapped[other] = swapped[other], swapped[place]
        yield PromptPair(
            clean=" ".join([openings[frame], *first, *second]),
            counterfactual=" ".join([openings[frame], *swapped, *second]),
            answer=f" {first[place]}",
            distractor=f" {first[other]}",
            template=f"{frame}-{length}",
            classes={
                **frame_part(frame, HELD_OUT_FRAMES),
                "length": str(length),
                "repeated": str(repeated),
                "answer place": place_of(place, length),
                **labels("objects nouns", answer=first[place]),
            },
        )
