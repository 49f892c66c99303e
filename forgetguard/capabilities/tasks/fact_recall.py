"""Task `fact_recall`: complete a fact about a country (its capital, its language).

The counterfactual names another country in the same sentence: one word's difference. Names of
people and places around the fact vary the context and carry no information about the answer. Light:
no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import (
    CAPITALS,
    LANGUAGES,
    fitting,
    frame_part,
    frames,
    labels,
    usable,
)

RELATIONS: Mapping[str, Mapping[str, str]] = {"capital": CAPITALS, "language": LANGUAGES}

FRAMES = {
    "capital-plain": "At the {place}, {name} said that the capital of {country} is",
    "capital-visit": "Last year {name} went to the capital of {country}, the city of",
    "capital-knows": "Now {name} and everyone at the {place} know the capital of {country},",
    "capital-asked": "When asked about the capital of {country}, {name} said that it is",
    "language-speak": "At the {place}, {name} said that people in {country} speak",
    "language-learn": "Before the trip to {country}, {name} learned to speak",
    "language-official": "At the {place}, {name} said that the language of {country} is",
    "language-book": "At the {place}, {name} found a book from {country}, written in",
    "capital-map": "{name} pointed at the map of {country}: its capital is",
    "capital-teacher": "In class, {name} learned that the capital city of {country} is",
    "capital-train": "From the {place}, {name} took a train to the capital of {country}, called",
    "capital-quiz": "The quiz at the {place} asked {name} to name the capital of {country}. It is",
    "language-children": "{name} has heard that children in {country} grow up speaking",
    "language-letter": "The letter that {name} received from {country} was written in",
    "language-radio": "On the radio of the {place}, {name} heard news from {country} in",
    "language-mother": "{name} was born in {country}, so the mother tongue of {name} is",
}
HELD_OUT_FRAMES = {
    "capital-flight": "The flight of {name} landed in the capital of {country}, which is",
    "capital-office": "The government of {country}, {name} explained, has its seat in",
    "capital-where": "Where is the parliament of {country}? {name} answered: in",
    "capital-moved": "{name} left the {place} and moved to the largest city of {country},",
    "language-class": "To work in {country}, {name} took evening classes in",
    "language-sign": "The sign at the {place} in {country} puzzled {name}, for it was in",
    "language-film": "{name} watched a film from {country} at the {place}; the actors spoke",
    "language-translated": "{name} translated the poem of a writer from {country} out of",
}


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; countries are uniform among those whose fact fits, in each relation.

    Raises CapabilityError when fewer than 6 facts of a relation, 4 names or 3 places fit.
    """
    facts = {relation: _known(relation, table, fits) for relation, table in RELATIONS.items()}
    names = usable("fact_recall", "names", fits, at_least=4)
    places = usable("fact_recall", "places", fits, at_least=3)
    sentences = frames("fact_recall", FRAMES, HELD_OUT_FRAMES, fits)
    while True:
        frame = rng.choice(tuple(sentences))
        known = facts[frame.split("-")[0]]
        country, other = rng.sample(tuple(known), 2)
        slots = {"name": rng.choice(names), "place": rng.choice(places)}
        yield PromptPair(
            clean=sentences[frame].format(**slots, country=country),
            counterfactual=sentences[frame].format(**slots, country=other),
            answer=f" {known[country]}",
            distractor=f" {known[other]}",
            template=frame,
            classes={
                **frame_part(frame, HELD_OUT_FRAMES),
                "relation": frame.split("-")[0],
                **(labels("names", name=slots["name"]) if "{name}" in sentences[frame] else {}),
                **(labels("places", place=slots["place"]) if "{place}" in sentences[frame] else {}),
            },
        )


def _known(relation: str, table: Mapping[str, str], fits: Callable[[str], int]) -> dict[str, str]:
    """The facts whose country and answer both fit; countries have one length, answers need not."""
    countries = fitting(
        "fact_recall",
        f"countries with their {relation}",
        tuple(table),
        lambda country: fits(country) if fits(table[country]) else 0,
        at_least=6,
    )
    return {country: table[country] for country in countries}
