"""What holds of every estimate, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forgetguard.gate import accuracy, studentised
from forgetguard.gate.resampling import FloatArray
from forgetguard.gate.verdict import Estimate

numbers = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))
sizes = st.integers(8, 20)
damages = sizes.flatmap(lambda size: arrays(np.float64, size, elements=numbers))
QUICK = settings(max_examples=50, deadline=None, derandomize=True)


def importance(size: int) -> FloatArray:
    return 5 + np.random.default_rng(size).standard_normal(size)


def ratio(damage: FloatArray, scale: FloatArray | None = None, seed: int = 0) -> Estimate:
    scale = importance(len(damage)) if scale is None else scale
    return studentised.ratio(damage, scale, resamples=499, seed=seed)


@QUICK
@given(damages)
def test_the_estimate_lies_within_its_interval(damage: FloatArray) -> None:
    found = ratio(damage)
    assert np.isfinite(found.value)
    # A bound may be infinite: where one pair in eight is all there is, no bound can be known.
    assert found.low <= found.value <= found.high


@QUICK
@given(damages, st.sampled_from([2.0**-20, 0.25, 4.0, 2.0**20]))
def test_units_cancel(damage: FloatArray, factor: float) -> None:
    assert ratio(damage * factor, importance(len(damage)) * factor) == ratio(damage)


@QUICK
@given(damages, st.sampled_from([0.5, 2.0]))
def test_a_dose_scales_the_estimate_and_its_bounds(damage: FloatArray, factor: float) -> None:
    found, more = ratio(damage), ratio(damage * factor)
    for bound in ("value", "low", "high"):
        assert getattr(more, bound) == pytest.approx(factor * getattr(found, bound), rel=1e-9)


@QUICK
@given(damages)
def test_mirrored_damage_mirrors_the_value(damage: FloatArray) -> None:
    assert ratio(-damage).value == -ratio(damage).value


@QUICK
@given(damages, st.integers(0, 9))
def test_another_order_of_pairs_keeps_the_value(damage: FloatArray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(damage))
    scale = importance(len(damage))
    there, back = ratio(damage, scale), ratio(damage[order], scale[order])
    assert back.value == pytest.approx(there.value, rel=1e-9, abs=1e-9)


@QUICK
@given(st.integers(16, 64), st.integers(0, 99))
def test_another_order_of_pairs_moves_bounds_by_their_draws_only(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    damage, scale, order = rng.standard_normal(size), importance(size), rng.permutation(size)
    there, back = ratio(damage, scale), ratio(damage[order], scale[order])
    width = there.high - there.low
    assert abs(back.low - there.low) <= 0.25 * width
    assert abs(back.high - there.high) <= 0.25 * width


@QUICK
@given(sizes)
def test_itself_reads_zero(size: int) -> None:
    found = ratio(np.zeros(size))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


pairs_of_flags = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@QUICK
@given(pairs_of_flags, st.sampled_from([0.8, 0.95, 0.99]))
def test_one_more_lost_pair_never_lowers_the_accuracy_bounds(
    flags: list[tuple[bool, bool]], confidence: float
) -> None:
    base, tuned = np.array(flags, dtype=bool).T
    before = accuracy.accuracy_drop(base, tuned, confidence=confidence)
    assert -1 <= before.low <= before.value <= before.high <= 1
    kept = np.flatnonzero(base & tuned)
    if kept.size:
        tuned = tuned.copy()
        tuned[kept[0]] = False
        after = accuracy.accuracy_drop(base, tuned, confidence=confidence)
        assert after.high >= before.high - 1e-9
        assert after.low >= before.low - 1e-9


@QUICK
@given(pairs_of_flags)
def test_a_higher_confidence_gives_a_wider_accuracy_interval(
    flags: list[tuple[bool, bool]],
) -> None:
    base, tuned = np.array(flags, dtype=bool).T
    narrow = accuracy.accuracy_drop(base, tuned, confidence=0.9)
    wide = accuracy.accuracy_drop(base, tuned, confidence=0.99)
    assert wide.low <= narrow.low + 1e-9
    assert wide.high >= narrow.high - 1e-9
