"""Mask shift and the vulnerable set say what moved, where, and in how many seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from examples.studies.comparison.mask_shift import (
    DELTA,
    Mask,
    mask_shift,
    mean_mask,
    vulnerable,
    vulnerable_over_seeds,
)
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.errors import MeasurementError

A, B, C, D = MEMBERS = (Head(0, 2), Head(0, 11), Mlp(0), Head(1, 0))


def mask(*values: float) -> dict[Member, float]:
    return dict(zip(MEMBERS, values, strict=True))


def test_a_shift_is_positive_where_the_member_gained() -> None:
    assert mask_shift(mask(1, 0.25, 0, 1), mask(0, 0.75, 0, 1)) == mask(1, -0.5, 0, 0)


def test_a_shift_is_in_the_members_order_whatever_the_masks_order() -> None:
    backwards = dict(reversed(mask(0, 0, 0, 0).items()))
    assert tuple(mask_shift(backwards, backwards)) == MEMBERS


def test_a_head_that_left_the_references_circuit_is_vulnerable_and_one_that_joined_is_not() -> None:
    assert vulnerable(mask(0, 1, 0, 1), mask(1, 0, 0, 1)) == (A,)


def test_a_fall_of_exactly_delta_does_not_count() -> None:
    assert vulnerable(mask(0.5, 0.25, 0.25, 0), mask(1, 1, 0.75, 0), delta=0.5) == (B,)
    assert vulnerable(mask(0.5, 0.25, 0.25, 0), mask(1, 1, 0.75, 0), delta=0.25) == (A, B, C)


def test_the_base_cancels_in_the_papers_set() -> None:
    tuned, reference, base = mask(0, 0.5, 0.25, 1), mask(1, 0.75, 1, 0), mask(0.5, 1, 0, 0.25)
    shift, other = mask_shift(tuned, base), mask_shift(reference, base)
    by_shift = tuple(member for member in MEMBERS if shift[member] < other[member] - DELTA)
    assert vulnerable(tuned, reference) == by_shift == (A, C)


def test_single_precision_masks_are_held_against_the_same_threshold() -> None:
    tuned, reference = mask(*[np.float32(0.0)] * 4), mask(*[np.float32(0.3)] * 4)
    # 0.3 in float32 lies 1.2e-8 above 0.3.
    assert vulnerable(tuned, reference, delta=0.3) == MEMBERS
    assert all(type(value) is float for value in mask_shift(tuned, reference).values())


def test_seeds_are_averaged_and_counted_over_all_their_pairs() -> None:
    tuned = [mask(0, 0, 1, 1), mask(0, 1, 1, 1)]
    reference = [mask(1, 1, 0, 1), mask(1, 1, 0, 1), mask(1, 0, 0, 1)]
    found = vulnerable_over_seeds(tuned, reference)
    assert found.members == (A,)
    assert found.drop == pytest.approx(mask(1, 2 / 3 - 1 / 2, -1, 0))
    # B falls where the tuned seed is the first (1 of 2) and the reference has it (2 of 3).
    assert found.share == mask(1, 1 / 3, 0, 0)
    assert (found.delta, found.tuned_seeds, found.reference_seeds) == (DELTA, 2, 3)


def test_what_seeds_alone_make_vulnerable_is_reported_beside() -> None:
    tuned = [mask(0, 0, 1, 1), mask(0, 1, 1, 1)]
    reference = [mask(1, 1, 0, 1), mask(1, 1, 0, 1), mask(1, 0, 0, 1)]
    # Ordered pairs of one model's seeds: 2 and 6, in which B falls once and twice.
    assert vulnerable_over_seeds(tuned, reference).share_within == mask(0, 3 / 8, 0, 0)


def test_one_seed_each_reads_as_the_plain_set_and_knows_no_noise() -> None:
    tuned, reference = mask(0, 0.4, 1, 1), mask(1, 1, 0, 1)
    found = vulnerable_over_seeds([tuned], [reference])
    assert found.members == vulnerable(tuned, reference) == (A, B)
    assert found.share == mask(1, 1, 0, 0)
    assert found.share_within is None


def test_a_mean_mask_is_the_mean_over_seeds() -> None:
    assert mean_mask([mask(0, 1, 0.5, 1), mask(1, 1, 0, 1)]) == mask(0.5, 1, 0.25, 1)


@pytest.mark.parametrize("value", [math.nan, -0.001, 1.001, math.inf])
def test_a_value_that_is_no_share_is_refused_with_the_member(value: float) -> None:
    wrong = mask(0, value, 0, 0)
    for call in (
        lambda: mask_shift(wrong, mask(0, 0, 0, 0)),
        lambda: vulnerable(mask(0, 0, 0, 0), wrong),
        lambda: vulnerable_over_seeds([mask(0, 0, 0, 0), wrong], [mask(0, 0, 0, 0)]),
    ):
        with pytest.raises(MeasurementError, match=r"out of \[0, 1\] or not finite at L0H11 "):
            call()


def test_missing_members_are_named_with_the_mask_that_lacks_them() -> None:
    fewer: Mask = {A: 0.0, D: 0.0}
    with pytest.raises(MeasurementError, match=r"the mask lacks L0H11, L0MLP"):
        mask_shift(fewer, mask(0, 0, 0, 0))
    with pytest.raises(MeasurementError, match=r"reference's mask lacks L0H11, L0MLP"):
        vulnerable(mask(0, 0, 0, 0), fewer)
    with pytest.raises(MeasurementError, match=r"mask of seed 1 lacks L0H11, L0MLP"):
        vulnerable_over_seeds([mask(0, 0, 0, 0), fewer], [mask(0, 0, 0, 0)])
    with pytest.raises(MeasurementError, match=r"tuned masks lacks L0H11, L0MLP"):
        vulnerable_over_seeds([fewer], [mask(0, 0, 0, 0)])


def test_no_mask_at_all_is_refused() -> None:
    with pytest.raises(MeasurementError, match="is empty"):
        mask_shift({}, {})
    with pytest.raises(MeasurementError, match="has no mask"):
        vulnerable_over_seeds([], [mask(0, 0, 0, 0)])


@pytest.mark.parametrize("delta", [-0.01, 1.0, math.nan])
def test_a_delta_that_decides_in_advance_is_refused(delta: float) -> None:
    for call in (
        lambda: vulnerable(mask(0, 0, 0, 0), mask(1, 1, 1, 1), delta),
        lambda: vulnerable_over_seeds([mask(0, 0, 0, 0)], [mask(1, 1, 1, 1)], delta),
    ):
        with pytest.raises(MeasurementError, match="delta is"):
            call()
