"""Task `ioi`: indirect object identification (Wang et al., arXiv 2211.00593).

"When Mary and John went to the store, John gave a book to" continues with Mary. The counterfactual
lets the other one give, which is one word's difference. Both orders of the names (the paper's ABBA
and BABA) are equally frequent. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import frame_part, frames, labels, usable

FRAMES = {
    "went": "When {first} and {second} went to the {place}, {giver} gave a {thing} to",
    "were": "While {first} and {second} were at the {place}, {giver} gave the {thing} to",
    "met": "After {first} and {second} met at the {place}, {giver} handed a {thing} to",
    "then": "Then {first} and {second} went to the {place}. {giver} handed the {thing} to",
    "today": "Today {first} and {second} met at the {place}, and {giver} passed a {thing} to",
    "friends": "Friends {first} and {second} found a {thing} at the {place}. {giver} gave it to",
    "bought": "At the {place}, {first} and {second} bought a {thing}. {giver} passed it to",
    "long": "When {first} and {second} came to the {place} with a {thing}, {giver} gave it to",
    "arrived": "Once {first} and {second} arrived at the {place}, {giver} gave a {thing} to",
    "because": "Because {first} and {second} were alone at the {place}, {giver} gave a {thing} to",
    "while": "{first} and {second} sat near the {place} while {giver} was showing a {thing} to",
    "yesterday": "Yesterday {first} and {second} walked to the {place}. {giver} sold a {thing} to",
    "left": "As {first} and {second} left the {place}, {giver} threw the {thing} to",
    "until": "{first} and {second} talked at the {place} until {giver} offered the {thing} to",
    "since": "Since {first} and {second} liked the {place}, {giver} sent a {thing} to",
    "story": "In the story, {first} and {second} visit the {place} and {giver} lends a {thing} to",
}
HELD_OUT_FRAMES = {
    "before": "Before {first} and {second} left the {place}, {giver} returned the {thing} to",
    "outside": "Outside the {place}, {first} and {second} waited, and {giver} tossed a {thing} to",
    "working": "{first} and {second} worked at the {place}. {giver} decided to give a {thing} to",
    "thing": "A {thing} lay at the {place}. {first} and {second} found it, and {giver} gave it to",
    "last": "Last week {first} and {second} came to the {place}, where {giver} lent a {thing} to",
    "after": "After a long day at the {place}, {first} and {second} rested, and {giver} read to",
    "wanted": "{first} and {second} wanted a {thing} from the {place}, so {giver} brought one to",
    "afternoon": "In the afternoon {first} and {second} had lunch at the {place}. {giver} said to",
}


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; the giver is the first or the second name with equal chance.

    Raises CapabilityError when fewer than 8 names, 3 places or 3 objects fit.
    """
    names = usable("ioi", "names", fits, at_least=8)
    places = usable("ioi", "places", fits, at_least=3)
    objects = usable("ioi", "objects", fits, at_least=3)
    sentences = frames("ioi", FRAMES, HELD_OUT_FRAMES, fits)
    while True:
        frame = rng.choice(tuple(sentences))
        first, second = rng.sample(names, 2)
        place, thing = rng.choice(places), rng.choice(objects)
        order = rng.choice(("abba", "baba"))
        receiver, giver = (first, second) if order == "abba" else (second, first)

        slots = {"first": first, "second": second, "place": place, "thing": thing}
        yield PromptPair(
            clean=sentences[frame].format(**slots, giver=giver),
            counterfactual=sentences[frame].format(**slots, giver=receiver),
            answer=f" {receiver}",
            distractor=f" {giver}",
            template=frame,
            classes={
                **frame_part(frame, HELD_OUT_FRAMES),
                "order": order,
                **labels("names", answer=receiver, distractor=giver),
                **labels("places", place=place),
                **labels("objects", object=thing),
            },
        )
