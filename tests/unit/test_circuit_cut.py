"""Which members a circuit holds: never without one that is worth a tenth of the effect, by sign
where that is smaller; and what is said beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from forgetguard.anatomy.members import Head, Member
from forgetguard.discovery import circuit as module
from forgetguard.discovery import curve as curve_module
from forgetguard.discovery.circuit import Found, Stability, fewest, find_circuit
from forgetguard.discovery.curve import Curve
from forgetguard.discovery.ranking import Ranking, by_sign, by_size, from_halves
from forgetguard.gate.provenance import describe
from forgetguard.measures.behaviour import Behaviour

PAIRS = 32
HEADS = tuple(Head(0, index) for index in range(10))


def found_of(
    effects: list[float],
    faithful: float = 0.8,
    whole: float = 10.0,
    worth: Callable[[set[Member]], float] | None = None,
) -> Found:
    """What is cut of a model whose heads add up, F of a set being the sum of its effects, unless
    `worth` says what a set is worth."""
    members = HEADS[: len(effects)]
    of = worth or (lambda held: sum(effect[one] for one in held))
    effect: dict[Member, float] = dict(zip(members, effects, strict=True))
    noise = np.random.default_rng(0).normal(0, 0.01, (len(members), PAIRS))

    def method(*_: Any, **__: Any) -> Ranking:
        values = np.array(effects)[:, None] + noise
        return Ranking(
            by_size(effect),
            "exact",
            patched=frozenset(members),
            by_half=from_halves(members, values),
        )

    def faithfulness(_: Any, __: Any, circuits: Any, universe: Any, **___: Any) -> SimpleNamespace:
        kept = np.array([of({*circuit}) for circuit in circuits])
        full = np.ones(PAIRS)
        return SimpleNamespace(
            values=kept / whole,
            circuits=kept[:, None] * full,
            nothing=0 * full,
            whole=whole,
            clean=Behaviour(whole * full, full > 0, full > 0),
        )

    pairs: Any = SimpleNamespace(n_pairs=PAIRS)
    nothing: Any = None
    with (
        patch.object(module, "check_able", lambda *_: 1.0),
        patch.object(module, "halves", lambda *_: (pairs, pairs)),
        patch.object(curve_module, "faithfulness", faithfulness),
    ):
        return find_circuit(nothing, pairs, method, members, faithful=faithful)


def test_a_member_worth_a_tenth_is_never_left_out() -> None:
    """The first three are faithful enough alone; the fourth carries 12 %, the fifth 5 %."""
    found = found_of([3.0, 3.0, 2.3, 1.2, 0.5])
    assert found.circuit == HEADS[:4]
    assert found_of([3.0, 3.0, 2.3, 0.9, 0.8]).circuit == HEADS[:3]


def test_members_that_work_against_it_are_left_out_and_named() -> None:
    """By size -3 comes second, and three more are needed to make up for it."""
    found = found_of([6.0, -3.0, 2.5, 2.0, 1.5, 1.0])
    assert found.signed
    assert found.circuit == (HEADS[0], HEADS[2], HEADS[3], HEADS[4], HEADS[5])
    assert found.against == {HEADS[1]: -3.0}
    assert found.ranking.order[-1] == HEADS[1]
    assert describe(found)["against"] == {"L0H1": -3.0}


def test_the_order_by_size_is_kept_where_its_circuit_is_smaller() -> None:
    """A member that works against it alone may be needed beside another."""
    pair = {HEADS[0], HEADS[1]}
    found = found_of(
        [6.0, -3.0, 0.5, 0.4, 0.3, 0.2], worth=lambda held: 10.0 if pair <= held else 5.0
    )
    assert not found.signed
    assert found.circuit == HEADS[:2]


def test_without_negative_effects_both_orders_are_one() -> None:
    found = found_of([6.0, 2.5, 1.5])
    assert not found.signed
    assert found.against == {}


def test_the_fewest_counts_exact_effects_alone() -> None:
    scores: dict[Member, float] = {HEADS[0]: 5.0, HEADS[1]: 2.0, HEADS[2]: 1.5, HEADS[3]: 0.1}
    ranking = Ranking(scores, "m", patched=frozenset([HEADS[0], HEADS[2], HEADS[3]]))
    assert fewest(ranking, 10.0) == 3
    assert fewest(replace(ranking, patched=frozenset()), 10.0) == 1


def test_what_was_not_patched_lies_between_what_helps_and_what_harms() -> None:
    scores: dict[Member, float] = {HEADS[0]: 0.1, HEADS[1]: 9.0, HEADS[2]: -4.0, HEADS[3]: -9.0}
    order = list(by_sign(scores, {HEADS[0], HEADS[2]}))
    assert order == [HEADS[0], HEADS[1], HEADS[3], HEADS[2]]


def test_stability_is_the_overlap_of_rankings_from_disjoint_halves_of_the_pairs() -> None:
    found = found_of([6.0, 2.5, 1.5])
    assert found.stability == Stability(PAIRS // 2, 3, 1.0, 1.0)
    assert describe(found)["stability"] == {"halves_of": 16, "top_3": 1.0, "circuit": 1.0}


def test_scores_by_half_are_means_over_half_of_the_pairs_each() -> None:
    values = np.random.default_rng(0).normal(size=(3, 8))
    one, other = from_halves(HEADS[:3], values)
    for row, member in zip(values, HEADS, strict=False):
        assert (one[member] + other[member]) / 2 == pytest.approx(row.mean())
        assert one[member] != pytest.approx(row.mean())


def test_a_dip_is_said_with_its_numbers() -> None:
    """Cut behind it, or before it where the bound does not tell: the curve of the ranking dips."""
    curve = Curve((1, 2, 3, 4), (0.85, 0.7, 0.9, 1.0), (0.8, 0.6, 0.85, 1.0), 4, "zero", 10.0, 8)
    ranking = Ranking(dict.fromkeys(HEADS[:4], 1.0), "m")
    found = Found(ranking, curve, HEADS[:3], 0.8, 1.0, 8, 0)
    assert describe(found)["dip"] == {"reached": 1, "at": 2, "lowest": 0.7}
    assert found.low == 0.85
    smooth = replace(curve, faithfulness=(0.7, 0.8, 0.9, 1.0))
    assert "dip" not in describe(replace(found, curve=smooth))
