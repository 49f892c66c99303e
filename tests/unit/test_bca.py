"""The interval that the gate's is compared with is BCa, by an independent computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from examples.studies.statistics import bca
from forgetguard.gate.resampling import FloatArray
from forgetguard.gate.verdict import Estimate


def data(seed: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    """Damage and importance of a plausible head: ratio 0.2, both noisy."""
    rng = np.random.default_rng(seed)
    importance = 3 + 1.5 * rng.standard_normal(pairs)
    return 0.2 * importance + 0.5 * rng.standard_normal(pairs), importance


def interval(numerator: FloatArray, denominator: FloatArray, **options: object) -> Estimate:
    """Of one row."""
    found = bca.ratios_of_means(numerator[None], denominator[None], **options)  # type: ignore[arg-type]
    return found.estimates[0]


def naive_bca(numerator: FloatArray, denominator: FloatArray, seed: int) -> tuple[float, float]:
    """BCa at Student-expanded 5 % levels, pair by pair in plain Python with its own draws."""
    rng = np.random.default_rng(seed)
    size = len(numerator)
    value = sum(numerator) / sum(denominator)
    draws = []
    for _ in range(4000):
        chosen = [int(index) for index in rng.integers(0, size, size)]
        draws.append(sum(numerator[i] for i in chosen) / sum(denominator[i] for i in chosen))
    left_out = [
        (sum(numerator) - numerator[i]) / (sum(denominator) - denominator[i]) for i in range(size)
    ]
    centre = sum(left_out) / size
    cubes = sum((centre - one) ** 3 for one in left_out)
    squares = sum((centre - one) ** 2 for one in left_out)
    acceleration = cubes / (6 * squares**1.5)
    normal = stats.norm
    bias = normal.ppf(sum(draw < value for draw in draws) / len(draws))
    bounds = []
    for level in (0.05, 0.95):
        quantile = math.sqrt(size / (size - 1)) * stats.t.ppf(level, size - 1)
        shift = bias + quantile
        bounds.append(np.quantile(draws, normal.cdf(bias + shift / (1 - acceleration * shift))))
    return float(bounds[0]), float(bounds[1])


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_is_that_of_a_naive_loop(skewed: bool) -> None:
    numerator, denominator = data(3, 14)
    if skewed:
        numerator[0] += 6
    found = interval(numerator, denominator, seed=1)
    low, high = naive_bca(numerator, denominator, seed=2)
    # Two independent sets of draws: the 5 % points differ by a few hundredths of the width.
    width = high - low
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)


def test_a_ratio_of_many_pairs_has_fiellers_interval() -> None:
    numerator, denominator = data(6, 2000)
    found = interval(numerator, denominator)
    n, d = numerator.mean(), denominator.mean()
    cov = np.cov(numerator, denominator) / 2000 * stats.norm.ppf(0.95) ** 2
    roots = np.roots([d**2 - cov[1, 1], -2 * (n * d - cov[0, 1]), n**2 - cov[0, 0]])
    width = roots.max() - roots.min()
    assert found.low == pytest.approx(roots.min(), abs=0.04 * width)
    assert found.high == pytest.approx(roots.max(), abs=0.04 * width)


def test_a_constant_ratio_has_no_width() -> None:
    _, importance = data(0, 33)
    for ratio in (0.3, -7.1, 1.0):
        found = interval(ratio * importance, importance)
        assert found.low == found.value == found.high == pytest.approx(ratio)


def test_a_negative_importance_is_a_denominator_like_any_other() -> None:
    numerator, denominator = data(1, 24)
    there = interval(numerator, denominator, seed=4)
    back = interval(-numerator, -denominator, seed=4)
    assert (back.value, back.low, back.high) == (there.value, there.low, there.high)


def test_a_row_among_others_keeps_its_interval_and_its_corrected_bound_is_lower() -> None:
    rows = [data(seed, 40) for seed in range(12)]
    family = bca.ratios_of_means(
        np.stack([row[0] for row in rows]),
        np.stack([row[1] for row in rows]),
        seed=3,
        fail_alpha=0.05 / 12,
    )
    for (damage, importance), found, low in zip(
        rows, family.estimates, family.corrected_low, strict=True
    ):
        alone = interval(damage, importance, seed=3)
        assert found.low == pytest.approx(alone.low, rel=1e-9)
        assert found.high == pytest.approx(alone.high, rel=1e-9)
        assert low < found.low


def test_pairs_that_repeat_within_templates_are_not_taken_for_more_evidence() -> None:
    numerator, denominator = data(9, 12)
    repeats = np.repeat(np.arange(12), 5)
    copies = numerator[repeats], denominator[repeats]
    naive = interval(*copies)
    honest = interval(*copies, clusters=repeats.astype(np.intp))
    alone = interval(numerator, denominator)
    assert honest.low == pytest.approx(alone.low, rel=1e-9)
    assert honest.high == pytest.approx(alone.high, rel=1e-9)
    assert naive.high - naive.low < 0.6 * (honest.high - honest.low)
    assert honest.n == 60
