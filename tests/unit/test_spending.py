"""The levels of repeated stages sum to the error that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from forgetguard.errors import MeasurementError
from forgetguard.gate import spending

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
counts = st.lists(st.integers(8, 400), min_size=1, max_size=5, unique=True).map(sorted)
alphas = st.sampled_from([0.2, 0.05, 0.01, 0.05 / 15, 0.05 / 150])
kinds = st.sampled_from(sorted(spending.SPENDING))


def crossing(counts: Sequence[int], levels: Sequence[float]) -> float:
    """How often a statistic whose true value stands exactly at the limit crosses at any stage,
    where stage i has the one-sided level `levels[i]`."""
    path, total = spending._Path(spending._shares(counts)), 0.0
    for level in levels:
        total += path.crosses(spending._boundary(level))
        path = path.after(level)
    return total


@pytest.mark.parametrize(
    ("first", "most", "wanted"),
    [
        (64, 256, (64, 128, 256)),
        (64, 300, (64, 128, 256, 300)),
        (64, 64, (64,)),
        (64, 65, (64, 65)),
        (1, 3, (1, 2, 3)),
    ],
)
def test_stages_double_until_the_most(first: int, most: int, wanted: tuple[int, ...]) -> None:
    assert spending.stages(first, most) == wanted


def test_stages_that_are_none_are_an_error() -> None:
    for first, most in ((0, 10), (20, 10)):
        with pytest.raises(MeasurementError):
            spending.stages(first, most)


def test_the_boundaries_are_the_published_ones() -> None:
    """Five equal looks, one-sided 0.025: Reboussin, DeMets, Kim & Lan 2000, Control. Clin. Trials
    21:190 (their program's boundaries; the first O'Brien-Fleming-like one is 4.8769)."""
    levels = spending.spent((1, 2, 3, 4, 5), 0.025, "obrien_fleming")
    bounds = [stats.norm.isf(level) for level in levels]
    assert bounds == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-3)
    levels = spending.spent((1, 2, 3, 4, 5), 0.025, "pocock")
    bounds = [stats.norm.isf(level) for level in levels]
    assert bounds == pytest.approx([2.4380, 2.4268, 2.4101, 2.3966, 2.3859], abs=2e-3)


@QUICK
@given(counts, alphas, kinds)
def test_all_looks_together_cross_with_alpha(seen: list[int], alpha: float, kind: str) -> None:
    levels = spending.spent(seen, alpha, kind)
    assert crossing(seen, levels) == pytest.approx(alpha, rel=1e-6)
    assert all(0 <= level <= alpha * (1 + 1e-12) for level in levels)
    assert sum(levels) >= alpha * (1 - 1e-9)  # looks overlap, so their levels may sum to more


@QUICK
@given(counts, alphas, kinds)
def test_no_look_spends_more_than_is_planned_until_then(
    seen: list[int], alpha: float, kind: str
) -> None:
    levels = spending.spent(seen, alpha, kind)
    for look in range(1, len(seen)):
        # The paths that cross until this look, with the later ones shut.
        until = crossing(seen, [*levels[:look], *[0.0] * (len(seen) - look)])
        assert until <= spending.SPENDING[kind](alpha, seen[look - 1] / seen[-1]) * (1 + 1e-6)


def test_scipys_multivariate_normal_gives_the_same_chance() -> None:
    seen = np.array([32, 64, 128, 200])
    levels = spending.spent(seen.tolist(), 0.05)
    together = np.sqrt(np.minimum.outer(seen, seen) / np.maximum.outer(seen, seen))
    inside = stats.multivariate_normal.cdf(
        stats.norm.isf(levels), cov=together, abseps=1e-6, releps=1e-6, rng=0
    )
    assert 1 - inside == pytest.approx(0.05, abs=2e-5)


@pytest.mark.parametrize("kind", sorted(spending.SPENDING))
def test_a_simulation_of_the_looks_crosses_with_alpha(kind: str) -> None:
    seen = (32, 64, 128, 256)
    levels = np.array(spending.spent(seen, 0.05, kind))
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((200_000, 4)) * np.sqrt(np.diff([0, *seen]))
    statistics = steps.cumsum(axis=1) / np.sqrt(seen)
    crossed = (statistics > stats.norm.isf(np.maximum(levels, 1e-300))).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 200_000))


def test_looking_early_at_alpha_each_time_would_cross_too_often() -> None:
    assert crossing((64, 128, 256), (0.05, 0.05, 0.05)) > 0.09


def test_one_look_has_the_whole_level() -> None:
    assert spending.spent((64,), 0.05) == (0.05,)
    assert crossing((64,), (0.05,)) == pytest.approx(0.05)


def test_obrien_fleming_keeps_nearly_all_for_the_end_and_pocock_does_not() -> None:
    late = spending.spent((64, 128, 256), 0.05, "obrien_fleming")
    even = spending.spent((64, 128, 256), 0.05, "pocock")
    assert late[0] < 0.0001 < 0.045 < late[-1]
    assert min(even) > 0.015
    assert spending.spent((8, 4000), 1e-4, "obrien_fleming")[0] == 0.0  # nothing to spend yet


def test_what_is_no_plan_is_an_error() -> None:
    for seen in ([], [64, 64], [128, 64], [0, 4]):
        with pytest.raises(MeasurementError):
            spending.spent(seen, 0.05)
    with pytest.raises(MeasurementError):
        spending.spent([64], 0.7)
    with pytest.raises(MeasurementError, match="unknown spending 'hope'"):
        spending.spent([64], 0.05, "hope")
