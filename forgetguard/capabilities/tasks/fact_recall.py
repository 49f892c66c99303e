"""Task `fact_recall`: complete a fact about a country (its capital, its language).

The counterfactual names another country in the same sentence: one word's difference. Names of
people and places around the fact vary the context and carry no information about the answer. Light:
no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks.words import CAPITALS, LANGUAGES, NAMES, PLACES, fitting

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
}


def generate(rng: random.Random, fits: Callable[[str], int]) -> Iterator[PromptPair]:
    """Endless pairs; countries are uniform among those whose fact fits, in each relation.

    Raises CapabilityError when fewer than 6 facts of a relation, 4 names or 3 places fit.
    """
    facts = {relation: _known(relation, table, fits) for relation, table in RELATIONS.items()}
    names = fitting("fact_recall", "names", NAMES, fits, at_least=4)
    places = fitting("fact_recall", "places", PLACES, fits, at_least=3)
    return _draw(rng, facts, names, places)


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


def _draw(
    rng: random.Random,
    facts: dict[str, dict[str, str]],
    names: tuple[str, ...],
    places: tuple[str, ...],
) -> Iterator[PromptPair]:
    while True:
        frame = rng.choice(tuple(FRAMES))
        known = facts[frame.split("-")[0]]
        country, other = rng.sample(tuple(known), 2)
        slots = {"name": rng.choice(names), "place": rng.choice(places)}
        yield PromptPair(
            clean=FRAMES[frame].format(**slots, country=country),
            counterfactual=FRAMES[frame].format(**slots, country=other),
            answer=f" {known[country]}",
            distractor=f" {known[other]}",
            template=frame,
        )
