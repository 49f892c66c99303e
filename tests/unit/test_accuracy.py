"""Intervals of an accuracy drop agree with independent computations, and say so little where little
is known; and the pairs that would decide do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from forgetguard.gate import accuracy, power
from forgetguard.gate.verdict import Estimate


def correct(pairs: int, lost: int, won: int) -> tuple[accuracy.BoolArray, accuracy.BoolArray]:
    base, tuned = np.ones(pairs, dtype=bool), np.ones(pairs, dtype=bool)
    tuned[:lost] = False
    base[pairs - won :] = False
    return base, tuned


def test_no_lost_pair_is_no_proof_of_no_loss() -> None:
    for pairs in (16, 64, 149):
        found = accuracy.accuracy_drop(*correct(pairs, 0, 0))
        # The loss at which seeing none in so many pairs has a chance of 5 %.
        assert (1 - found.high) ** pairs == pytest.approx(0.05)
        assert found.value == 0


def best_likelihood(lost: int, won: int, pairs: int, drop: float) -> float:
    """The likeliest share of won pairs given the drop, by numerical search."""

    def loss(share: float) -> float:
        cells = ((lost, share + drop), (won, share), (pairs - lost - won, 1 - 2 * share - drop))
        return -sum(count * math.log(max(rate, 1e-300)) for count, rate in cells)

    low, high = max(0.0, -drop), (1 - drop) / 2
    options = {"xatol": 1e-12}
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options=options)
    return float(found.x)


@pytest.mark.parametrize(("pairs", "lost", "won"), [(44, 16, 2), (50, 5, 1), (20, 1, 3)])
def test_the_accuracy_bounds_solve_the_score_equation(pairs: int, lost: int, won: int) -> None:
    found = accuracy.accuracy_drop(*correct(pairs, lost, won))
    for drop, side in ((found.low, 1), (found.high, -1)):
        share = best_likelihood(lost, won, pairs, drop)
        variance = (2 * share + drop * (1 - drop)) / pairs
        score = ((lost - won) / pairs - drop) / math.sqrt(variance)
        assert score == pytest.approx(side * stats.norm.ppf(0.95), abs=1e-4)


def test_swapping_the_models_mirrors_the_accuracy_drop() -> None:
    base, tuned = correct(40, 6, 2)
    there, back = accuracy.accuracy_drop(base, tuned), accuracy.accuracy_drop(tuned, base)
    assert there.value == -back.value
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.high == pytest.approx(-back.low, abs=1e-9)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 1), (40, 0), (0, 40), (20, 20)])
def test_the_accuracy_drop_stays_a_difference_of_proportions(lost: int, won: int) -> None:
    found = accuracy.accuracy_drop(*correct(40, lost, won))
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_the_number_of_pairs_that_would_decide_is_the_square_of_the_reach() -> None:
    undecided = Estimate(0.05, 0.0, 0.15, 0.9, 64)
    assert power.pairs_to_decide(undecided, 0.10) == pytest.approx(256, abs=1)
    assert power.pairs_to_decide(Estimate(0.10, 0.0, 0.15, 0.9, 64), 0.10) is None
    assert power.pairs_to_decide(Estimate(0.15, 0.0, 0.2, 0.9, 10), 0.10) == pytest.approx(
        90, abs=1
    )
    assert power.pairs_to_decide(Estimate(0.05, 0.0, math.inf, 0.9, 10), 0.10) is None


def test_the_number_of_pairs_that_would_decide_an_accuracy_does() -> None:
    wanted = power.pairs_to_decide_drop(*correct(64, 0, 0), 0.02)
    assert wanted == 149
    assert accuracy.accuracy_drop(*correct(149, 0, 0)).high <= 0.02
    assert accuracy.accuracy_drop(*correct(148, 0, 0)).high > 0.02


@pytest.mark.parametrize("wrong", [0, 1, 3, 30])
def test_a_share_of_right_answers_has_wilsons_interval(wrong: int) -> None:
    right = np.arange(64) >= wrong
    found = accuracy.accuracy(right)
    exact = stats.binomtest(64 - wrong, 64).proportion_ci(0.9, method="wilson")
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    # In one template of eight, or in all of them: then pairs tell less.
    together, apart = np.arange(64) // 8, np.arange(64) % 8
    if wrong == 3:
        lows = [accuracy.accuracy(right, clusters=one).low for one in (together, apart)]
        assert 0.5 < lows[0] < lows[1] <= found.low


@pytest.mark.parametrize("chance", [0.25, 0.5])
@pytest.mark.parametrize("wrong", [0.0, 0.02, 0.3, 0.6])
@pytest.mark.parametrize("lost", [0.05, 0.2])
def test_flips_less_those_of_chance_are_bounded_as_often_as_they_say(
    chance: float, wrong: float, lost: float
) -> None:
    """By enumeration of all outcomes of 40 documents: no bound is missed by more than 8 %."""
    truth, below, above = lost - chance * wrong, 0.0, 0.0
    outcomes = stats.multinomial(40, [lost, wrong, 1 - lost - wrong])
    for flipped in range(41):
        for others in range(41 - flipped if wrong else 1):
            counts = [flipped, others, 40 - flipped - others]
            found = accuracy.flips(np.repeat([1.0, -chance, 0.0], counts), chance)
            assert found.value == pytest.approx((flipped - chance * others) / 40)
            assert -1 <= found.low <= found.value <= found.high <= 1
            below += outcomes.pmf(counts) * (found.high < truth)
            above += outcomes.pmf(counts) * (found.low > truth)
    assert below < 0.08
    assert above < 0.08


def test_flips_of_a_base_that_is_always_right_have_the_bounds_of_a_proportion() -> None:
    found = accuracy.flips(np.repeat([1.0, 0.0], [3, 189]), 0.0)
    theirs = stats.binomtest(3, 192).proportion_ci(0.9, method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    # Over another model what was won weighs as much as what was lost, though none was.
    over = accuracy.flips(np.repeat([1.0, 0.0], [2, 22]), 1.0)
    assert over.low < accuracy.flips(np.repeat([1.0, 0.0, -1.0], [3, 20, 1]), 1.0).value
    assert over.low < 0
    none = accuracy.flips(np.zeros(64), 0.25)
    assert none.high == pytest.approx(1 - 0.05 ** (1 / 64))
