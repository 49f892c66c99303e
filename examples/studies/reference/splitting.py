"""A split of questions into training and evaluation, by seed, duplicates on one side."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question

# Places in the list of questions that must stay together.
_Unit = tuple[int, ...]


def split(
    questions: Sequence[Question], evaluation: int, seed: int
) -> tuple[list[Question], list[Question]]:
    """Training and evaluation questions, exactly `evaluation` of these, each in the given order.

    Questions of one non-empty group stay together. Each stratum (a kind of question and the file it
    was read from, whose tasks differ) gives its share, rounded by largest remainders; where groups
    do not fit a share, others fill up. Which questions go depends on the seed and on their order,
    not on where the files lie.

    Raises:
        SpecificationError: one side would be empty, or no whole groups make that many.
    """
    if not 0 < evaluation < len(questions):
        raise SpecificationError(
            f"evaluation is {evaluation} of {len(questions)} questions: leave at least one on each "
            f"side, so 1 to {len(questions) - 1}"
            if len(questions) > 1
            else f"{len(questions)} questions cannot be split: give 2 or more"
        )
    rng = random.Random(f"split {seed}")
    strata = _strata(questions)
    for units in strata:
        rng.shuffle(units)
    chosen: set[int] = set()
    for units, share in zip(strata, _shares(strata, evaluation), strict=True):
        chosen.update(_fill(units, share))
    left = [unit for units in strata for unit in units if unit[0] not in chosen]
    rng.shuffle(left)
    chosen.update(_fill(left, evaluation - len(chosen)))
    if len(chosen) != evaluation:
        raise SpecificationError(
            f"evaluation is {evaluation}: groups of duplicates that stay together make "
            f"{len(chosen)} of {len(questions)} questions, not exactly that many; take "
            f"{len(chosen) or 'another number'}"
        )
    train = [question for place, question in enumerate(questions) if place not in chosen]
    return train, [questions[place] for place in sorted(chosen)]


def _strata(questions: Sequence[Question]) -> list[list[_Unit]]:
    """The units of each stratum, in order of appearance; a unit's is that of its first question."""
    together: defaultdict[str, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        together[f"group {question.group}" if question.group else f"alone {place}"].append(place)
    strata: defaultdict[tuple[str, str], list[_Unit]] = defaultdict(list)
    for places in together.values():
        first = questions[places[0]]
        strata[first.kind, first.where.rpartition(":")[0]].append(tuple(places))
    return list(strata.values())


def _shares(strata: Sequence[Sequence[_Unit]], total: int) -> list[int]:
    """The total in proportion to the strata's questions, by largest remainders."""
    sizes = [sum(map(len, units)) for units in strata]
    exact = [total * size / sum(sizes) for size in sizes]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _fill(units: Sequence[_Unit], room: int) -> list[int]:
    """The places of units, in turn, that fit into the room left."""
    taken: list[int] = []
    for unit in units:
        if len(unit) <= room - len(taken):
            taken += unit
    return taken
