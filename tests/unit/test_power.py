"""What a verdict calls detectable is what a simulation detects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from forgetguard.gate import accuracy, power, studentised
from forgetguard.gate.verdict import Estimate

LIMIT = 0.10


def rates(true: float, alpha: float, pairs: int = 64, sets: int = 600) -> tuple[float, float]:
    """How often a simulated limit fails and passes at a true value."""
    rng = np.random.default_rng(round(1e6 * true))
    importance = 3 + 0.6 * rng.standard_normal((sets, pairs))
    damage = true * importance + 0.4 * rng.standard_normal((sets, pairs))
    found = studentised.ratios(
        damage, importance, confidence=1 - alpha, fail_alpha=0, resamples=3999
    ).estimates
    fails = sum(one.low > LIMIT for one in found) / sets
    return fails, sum(one.high <= LIMIT for one in found) / sets


def estimate(alpha: float, pairs: int = 64) -> Estimate:
    """A typical one, of a checkpoint at the limit: the medians of several."""
    rng = np.random.default_rng(0)
    importance = 3 + 0.6 * rng.standard_normal((101, pairs))
    damage = LIMIT * importance + 0.4 * rng.standard_normal((101, pairs))
    found = studentised.ratios(
        damage, importance, confidence=1 - alpha, fail_alpha=0, resamples=3999
    ).estimates
    low = float(np.median([one.value - one.low for one in found]))
    high = float(np.median([one.high - one.value for one in found]))
    return Estimate(LIMIT, LIMIT - low, LIMIT + high, 1 - 2 * alpha, pairs)


def detectable(alpha: float, pairs: int = 64) -> float:
    """What a typical checkpoint at the limit calls detectable."""
    found = estimate(alpha, pairs)
    error = 0.4 / math.sqrt(pairs) / 3
    said = power.detectable(found.value, found.value - found.low, error, LIMIT, freedom=pairs - 1)
    assert said is not None
    return said


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 15])
def test_the_detectable_value_fails_four_times_in_five(alpha: float) -> None:
    assert rates(detectable(alpha), alpha)[0] == pytest.approx(0.80, abs=0.05)


def growing(true: float, sets: int = 800, pairs: int = 64) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Damage that spreads as much as itself, beside noise."""
    rng = np.random.default_rng(round(1e6 * true) + 1)
    importance = 3 + 0.6 * rng.standard_normal((sets, pairs))
    share = true * rng.gamma(1, 1, (sets, pairs))
    return share * importance + 0.2 * rng.standard_normal((sets, pairs)), importance


@pytest.mark.parametrize("said_at", [0.02, 0.2])
def test_it_reckons_with_damage_that_grows_more_uneven(said_at: float) -> None:
    """Whether a harmless checkpoint or a harmful one says it."""
    alpha = 0.05
    said = []
    for one, error in zip(*estimated(said_at, alpha), strict=True):
        said.append(
            power.detectable(
                one.value, one.value - one.low, error, LIMIT, freedom=63, growth=power.growth(64)
            )
        )
    median = float(np.median([math.inf if one is None else one for one in said]))
    lows = [one.low for one in estimated(median, alpha)[0]]
    assert 0.70 <= np.mean(np.array(lows) > LIMIT) <= 0.90


def estimated(true: float, alpha: float) -> tuple[tuple[Estimate, ...], tuple[float, ...]]:
    found = studentised.ratios(*growing(true), confidence=1 - alpha, fail_alpha=0, resamples=1999)
    return found.estimates, found.errors


def test_the_passable_value_passes_four_times_in_five() -> None:
    found = estimate(0.05)
    said = power.passable(found.value, found.high, LIMIT, 0.05)
    assert said is not None
    assert rates(said, 0.05)[1] == pytest.approx(0.80, abs=0.07)


def test_what_can_be_told_lies_on_either_side_of_the_limit_and_nearer_with_more_pairs() -> None:
    reach = []
    for pairs in (16, 64, 256):
        found = estimate(0.05, pairs)
        beyond = detectable(0.05, pairs)
        within = power.passable(found.value, found.high, LIMIT, 0.05)
        assert within is not None
        assert within < LIMIT < beyond
        reach.append(beyond - LIMIT)
    assert reach[0] > 1.8 * reach[1] > 3.2 * reach[2]


def test_without_a_bound_or_where_spread_grows_as_fast_as_damage_nothing_is_detectable() -> None:
    assert power.detectable(0.1, math.inf, 0.01, LIMIT) is None
    assert power.detectable(0.1, 0.02, 0.0, LIMIT) is None
    assert power.detectable(0.0, 0.1, 0.05, LIMIT, freedom=7, growth=0.4) is None
    assert power.passable(0.1, math.inf, LIMIT, 0.05) is None


@pytest.mark.parametrize(
    ("lost", "won", "pairs", "alpha"),
    [(0, 0, 64, 0.05), (2, 1, 64, 0.05), (1, 0, 128, 0.05 / 15), (12, 9, 200, 0.05)],
)
def test_the_detectable_drop_of_accuracy_fails_four_times_in_five(
    lost: int, won: int, pairs: int, alpha: float
) -> None:
    said = power.detectable_drop(lost, won, pairs, LIMIT, alpha)
    assert said is not None
    share = won / pairs
    rng = np.random.default_rng(1)
    counts = rng.multinomial(pairs, [said + share, share, 1 - said - 2 * share], 1500)
    fails = 0
    for (changed, back), times in zip(
        *np.unique(counts[:, :2], axis=0, return_counts=True), strict=True
    ):
        low = accuracy.drop_bounds(int(changed), int(back), pairs, 1 - alpha)[0]
        fails += times * (low > LIMIT)
    # Four standard errors of 1,500 tries.
    assert fails / 1500 == pytest.approx(0.80, abs=0.042)


def test_a_drop_that_so_few_pairs_can_hardly_show_is_none() -> None:
    assert power.detectable_drop(0, 0, 2, 0.9, 0.0001) is None
    assert power.detectable_drop(0, 0, 5000, 0.1, 0.05) is None


def test_the_score_crosses_its_quantile_where_the_bound_crosses_the_drop() -> None:
    for lost, won, pairs in ((5, 1, 40), (12, 3, 64), (1, 0, 30)):
        low, high = accuracy.drop_bounds(lost, won, pairs, 0.95)
        quantile = stats.norm.isf(0.05)
        assert accuracy.drop_score(lost, won, pairs, low) == pytest.approx(quantile, abs=1e-6)
        assert accuracy.drop_score(lost, won, pairs, high) == pytest.approx(-quantile, abs=1e-6)


def test_another_level_for_the_fail_side_moves_only_that_side() -> None:
    base = np.ones(64, dtype=bool)
    tuned = base.copy()
    tuned[:14] = False
    same = power.pairs_to_decide_drop(base, tuned, 0.1)
    stricter = power.pairs_to_decide_drop(base, tuned, 0.1, fail_confidence=1 - 0.05 / 15)
    assert same is not None
    assert stricter is not None
    assert stricter > same
    tuned[:14] = True
    same = power.pairs_to_decide_drop(base, tuned, 0.1)
    assert power.pairs_to_decide_drop(base, tuned, 0.1, fail_confidence=0.999) == same
