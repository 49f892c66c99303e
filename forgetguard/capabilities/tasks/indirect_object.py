"""Task `ioi`: indirect object identification (Wang et al., arXiv 2211.00593).

"When Mary and John went to the store, John gave a book to" continues with Mary. The counterfactual
lets the other one give, which is one word's difference. Both orders of the names (the paper's ABBA
and BABA) are equally frequent. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import NAMES, OBJECTS, PLACES, fitting

FRAMES = {
    "went": "When {first} and {second} went to the {place}, {giver} gave a {thing} to",
    "were": "While {first} and {second} were at the {place}, {giver} gave the {thing} to",
    "met": "After {first} and {second} met at the {place}, {giver} handed a {thing} to",
    "then": "Then {first} and {second} went to the {place}. {giver} handed the {thing} to",
    "today": "Today {first} and {second} met at the {place}, and {giver} passed a {thing} to",
    "friends": "Friends {first} and {second} found a {thing} at the {place}. {giver} gave it to",
    "bought": "At the {place}, {first} and {second} bought a {thing}. {giver} passed it to",
    "long": "When {first} and {second} came to the {place} with a {thing}, {giver} gave it to",
}


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; the giver is the first or the second name with equal chance.

    Raises CapabilityError when fewer than 8 names, 3 places or 3 objects fit.
    """
    names = fitting("ioi", "names", NAMES, fits, at_least=8)
    places = fitting("ioi", "places", PLACES, fits, at_least=3)
    objects = fitting("ioi", "objects", OBJECTS, fits, at_least=3)
    return _draw(rng, names, places, objects)


def _draw(
    rng: random.Random, names: tuple[str, ...], places: tuple[str, ...], objects: tuple[str, ...]
) -> Iterator[PromptPair]:
    while True:
        frame = rng.choice(tuple(FRAMES))
        first, second = rng.sample(names, 2)
        place, thing = rng.choice(places), rng.choice(objects)
        order = rng.choice(("abba", "baba"))
        receiver, giver = (first, second) if order == "abba" else (second, first)

        slots = {"first": first, "second": second, "place": place, "thing": thing}
        yield PromptPair(
            clean=FRAMES[frame].format(**slots, giver=giver),
            counterfactual=FRAMES[frame].format(**slots, giver=receiver),
            answer=f" {receiver}",
            distractor=f" {giver}",
            template=f"{frame}-{order}",
        )
