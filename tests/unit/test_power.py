"""What a verdict calls detectable is what a simulation detects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

from examples.studies.statistics.doses import passable
from forgetguard.gate import accuracy, power, studentised

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


@dataclass(frozen=True)
class Typical:
    """An estimate of a checkpoint at the limit: the medians of several."""

    reach: float  # to the lower bound
    high: float
    error: float
    freedom: float


def estimate(alpha: float, pairs: int = 64) -> Typical:
    rng = np.random.default_rng(0)
    importance = 3 + 0.6 * rng.standard_normal((101, pairs))
    damage = LIMIT * importance + 0.4 * rng.standard_normal((101, pairs))
    family = studentised.ratios(
        damage, importance, confidence=1 - alpha, fail_alpha=0, resamples=3999
    )
    found = family.estimates
    return Typical(
        float(np.median([one.value - one.low for one in found])),
        LIMIT + float(np.median([one.high - one.value for one in found])),
        float(np.median(family.errors)),
        family.freedom,
    )


def detectable(found: Typical, **more: float) -> float | None:
    return power.detectable(LIMIT, found.reach, found.error, LIMIT, freedom=found.freedom, **more)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 15])
def test_the_detectable_value_fails_four_times_in_five(alpha: float) -> None:
    said = detectable(estimate(alpha))
    assert said is not None
    assert rates(said, alpha)[0] == pytest.approx(0.80, abs=0.07)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 15])
def test_damage_that_spreads_as_it_grows_is_detected_four_times_in_five(alpha: float) -> None:
    """All of the spread is a share of the damage: what the estimate saw at the limit, and more
    beyond it."""
    pairs, sets, spread = 64, 600, 1.0
    growth = spread / math.sqrt(pairs)
    rng = np.random.default_rng(5)
    importance = np.full((sets, pairs), 3.0)

    def damage(true: float) -> Any:
        return true * 3 * (1 + spread * rng.standard_normal((sets, pairs)))

    def read(true: float) -> studentised.Family:
        return studentised.ratios(
            damage(true), importance, confidence=1 - alpha, fail_alpha=0, resamples=1999
        )

    family = read(LIMIT)
    reach = float(np.median([one.value - one.low for one in family.estimates]))
    error = float(np.median(family.errors))
    told = [
        power.detectable(LIMIT, reach, error, LIMIT, freedom=family.freedom, growth=one)
        for one in (0.0, growth)
    ]
    still, growing = told
    assert still is not None
    assert growing is not None
    assert growing > still
    fails = np.mean([one.low > LIMIT for one in read(growing).estimates])
    assert fails == pytest.approx(0.80, abs=0.07)
    # Taking today's error for that of the larger damage promises what it does not keep.
    assert np.mean([one.low > LIMIT for one in read(still).estimates]) < 0.70


def test_damage_whose_spread_grows_as_fast_as_itself_is_never_promised() -> None:
    assert power.detectable(0.1, 0.3, 0.1, LIMIT, freedom=63, growth=0.5) is None


def test_the_passable_value_passes_four_times_in_five() -> None:
    found = estimate(0.05)
    said = passable(LIMIT, found.high, LIMIT, 0.05)
    assert said is not None
    assert rates(said, 0.05)[1] == pytest.approx(0.80, abs=0.07)


def test_what_can_be_told_lies_on_either_side_of_the_limit_and_nearer_with_more_pairs() -> None:
    reach = []
    for pairs in (16, 64, 256):
        found = estimate(0.05, pairs)
        beyond = detectable(found)
        within = passable(LIMIT, found.high, LIMIT, 0.05)
        assert beyond is not None
        assert within is not None
        assert within < LIMIT < beyond
        reach.append(beyond - LIMIT)
    assert reach[0] > 1.8 * reach[1] > 3.2 * reach[2]


def test_nothing_is_said_without_a_width_to_go_by() -> None:
    assert power.detectable(0.1, math.inf, 0.1, LIMIT) is None
    assert power.detectable(0.0, 0.0, 0.0, LIMIT) is None
    assert passable(0.1, math.inf, LIMIT, 0.05) is None


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


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 15])
@pytest.mark.parametrize("pairs", [64, 256])
def test_damage_that_few_pairs_carry_is_seen_from_the_sparse_value_on(
    alpha: float, pairs: int
) -> None:
    """Every pair loses nothing or all; said by a checkpoint that lost nothing yet."""
    said, loss = estimate(alpha, pairs), 1.0
    found = power.detectable_sparse(
        said.reach, said.error, LIMIT, pairs=pairs, loss=loss, freedom=said.freedom
    )
    usual = detectable(said)
    assert found is not None
    assert usual is not None
    assert found > usual
    rng, sets = np.random.default_rng(11), 400
    importance = 3 + 0.6 * rng.standard_normal((sets, pairs))
    lost = rng.random((sets, pairs)) < found
    damage = lost * importance + 0.4 * rng.standard_normal((sets, pairs))
    lows = studentised.ratios(
        damage, importance, confidence=1 - alpha, fail_alpha=0, resamples=3999
    ).estimates
    assert np.mean([one.low > LIMIT for one in lows]) > 0.74  # its standard error is 0.02


def test_where_not_even_all_would_be_seen_nothing_is_called_detectable() -> None:
    assert power.detectable_sparse(2.0, 0.5, LIMIT, pairs=16, loss=1.0, freedom=15) is None
    assert power.detectable_sparse(0.1, 0.05, 1.0, pairs=16, loss=1.0) is None


def test_damage_that_few_pairs_carry_is_seen_where_importances_differ() -> None:
    """With a coefficient of variation of 1.3 importances count: taken to be alike, the value said
    delivers 55 %."""
    pairs, sets = 64, 300
    rng = np.random.default_rng(4)
    importance = np.exp(rng.standard_normal((sets, pairs)))
    noise = 0.1 * rng.standard_normal((sets, pairs))
    intact = studentised.ratios(noise, importance, fail_alpha=0, resamples=1999)
    uneven = importance.var(axis=1) / importance.mean(axis=1) ** 2

    def delivered(unevenness: float) -> float:
        said = [
            power.detectable_sparse(
                estimate.value - estimate.low,
                error,
                LIMIT,
                pairs=pairs,
                loss=1.0,
                unevenness=unevenness * one,
                freedom=intact.freedom,
            )
            for estimate, error, one in zip(intact.estimates, intact.errors, uneven, strict=True)
        ]
        true = float(np.median([1.0 if one is None else one for one in said]))
        lost = rng.random((sets, pairs)) < true
        hurt = studentised.ratios(lost * importance + noise, importance, fail_alpha=0)
        return float(np.mean([one.low > LIMIT for one in hurt.estimates]))

    assert delivered(1.0) > 0.78
    assert delivered(0.0) < 0.65


@pytest.mark.parametrize(("templates", "of_each"), [(6, 11), (8, 8), (16, 4)])
def test_a_detectable_drop_of_templates_is_seen(templates: int, of_each: int) -> None:
    """Where drops differ between templates as real damage does; taken for independent pairs, the
    value said delivers 50 to 73 %."""
    pairs, alpha, rng = templates * of_each, 0.05, np.random.default_rng(8)
    codes, base = np.repeat(np.arange(templates), of_each), np.ones(pairs, dtype=bool)

    def delivered(true: float | None) -> float:
        assert true is not None
        lows = []
        for _ in range(200):
            shares = np.clip(true * (1 + 0.4 * rng.standard_normal(templates)), 0, 1)
            kept = rng.random(pairs) >= shares[codes]
            found = accuracy.accuracy_drop(base, kept, confidence=1 - alpha, clusters=codes)
            lows.append(found.low)
        return float(np.mean([low > LIMIT for low in lows]))

    assert delivered(power.detectable_drop(0, 0, pairs, LIMIT, alpha, templates=templates)) > 0.78
    assert delivered(power.detectable_drop(0, 0, pairs, LIMIT, alpha)) < 0.80


def test_no_drop_of_few_templates_is_called_detectable_that_is_not() -> None:
    """Eight templates in a run of fifteen limits: a drop of 0.6 fails in a third of the draws."""
    assert power.detectable_drop(0, 0, 64, LIMIT, 0.05 / 15, templates=8) is None
    assert power.detectable_drop(0, 60, 64, 0.1, 0.05, templates=8) is None


def test_what_is_won_cannot_be_lost_as_well() -> None:
    """A drop is at most 1 - 2 * (share won)."""
    assert power.detectable_drop(0, 29, 64, 0.1, 0.05, templates=16) is None
    most = power.detectable_drop(0, 20, 64, 0.1, 0.05, templates=16)
    assert most is None or most <= 1 - 2 * 20 / 64


def test_hardly_one_template_promises_nothing() -> None:
    """63 pairs of one and one of another come to 1.03 templates."""
    assert power.detectable_drop(0, 0, 64, LIMIT, 0.05, templates=1.03) is None
    sparse = power.detectable_sparse(
        0.2, 0.05, LIMIT, pairs=64, loss=1.0, freedom=0.03, templates=1.03
    )
    assert sparse is None
    assert power.detectable(0.0, 0.2, 0.05, LIMIT, freedom=0.03) is None
