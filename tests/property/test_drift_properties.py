"""What holds of every divergence, rotation, similarity and drift."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import subspace_angles

from examples.studies.drift.representations import linear_cka
from examples.studies.drift.rotations import gap, value_share
from examples.studies.drift.sampled import Scores, sampled_divergence
from examples.studies.drift.weights import changed_share
from forgetguard.measures.divergence import token_divergence
from forgetguard.measures.parameter_drift import Drift, together
from forgetguard.measures.singular_rotation import rotation

FloatArray = npt.NDArray[np.float64]
QUICK = settings(max_examples=100, deadline=None, derandomize=True)

seeds = st.integers(0, 2**32 - 1)
logits = arrays(np.float64, (3, 6), elements=st.floats(-200, 200))
two_logits = st.tuples(logits, logits)


def normal(seed: int, rows: int, columns: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


@QUICK
@given(two_logits)
def test_divergences_are_finite_and_never_negative(pair: tuple[FloatArray, FloatArray]) -> None:
    for found in token_divergence(*map(torch.from_numpy, pair)):
        assert (found >= 0).all()
        assert found.isfinite().all()


@QUICK
@given(two_logits)
def test_exchanging_the_models_exchanges_the_directions(
    pair: tuple[FloatArray, FloatArray],
) -> None:
    one, other = map(torch.from_numpy, pair)
    forward, reverse = token_divergence(one, other)
    back, there = token_divergence(other, one)
    assert torch.equal(forward, there)
    assert torch.equal(reverse, back)


@QUICK
@given(two_logits, st.floats(-50, 50), st.permutations(range(6)))
def test_neither_a_shift_of_the_logits_nor_the_order_of_ids_matters(
    pair: tuple[FloatArray, FloatArray], shift: float, order: list[int]
) -> None:
    one, other = map(torch.from_numpy, pair)
    before = token_divergence(one, other)
    after = token_divergence(one[:, order] + shift, other[:, order])
    for found, expected in zip(after, before, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@QUICK
@given(logits)
def test_only_equal_distributions_read_zero(one: FloatArray) -> None:
    first = torch.from_numpy(one)
    assert not any(found.any() for found in token_divergence(first, first.clone()))
    moved = first.clone()
    moved[:, 0] += 1.0
    share = first.softmax(-1)[:, 0]
    assume(bool(((share > 1e-3) & (share < 1 - 1e-3)).all()))
    assert all((found > 0).all() for found in token_divergence(first, moved))


@QUICK
@given(
    arrays(np.float64, 8, elements=st.floats(-20, 0)),
    arrays(np.float64, 8, elements=st.floats(-20, 0)),
)
def test_the_two_estimates_differ_by_what_is_zero_on_average(
    base: FloatArray, tuned: FloatArray
) -> None:
    passages = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    found = sampled_divergence(Scores(base, passages), Scores(tuned, passages), drawn_from="base")
    assert (found.non_negative >= 0).all()
    assert found.log_ratio.sum() == pytest.approx((base - tuned).sum(), abs=1e-9)
    between = np.bincount(passages, weights=np.exp(tuned - base) - 1)
    assert found.non_negative - found.log_ratio == pytest.approx(between, rel=1e-9, abs=1e-9)


matrices = st.tuples(seeds, st.integers(4, 12), st.integers(4, 12), st.floats(1e-8, 3))


@QUICK
@given(matrices, st.integers(1, 9))
def test_angles_are_those_of_scipy_symmetric_and_at_most_a_quarter_turn(
    drawn: tuple[int, int, int, float], k: int
) -> None:
    seed, rows, columns, size = drawn
    assume(k <= 0.75 * min(rows, columns))
    base = normal(seed, rows, columns)
    tuned = base + size * normal(seed + 1, rows, columns)
    found = rotation(torch.from_numpy(base), torch.from_numpy(tuned), k)
    back = rotation(torch.from_numpy(tuned), torch.from_numpy(base), k)
    (u, _, v), (other_u, _, other_v) = np.linalg.svd(base), np.linalg.svd(tuned)
    for angles, there, one, other in (
        (found.left, back.left, u[:, :k], other_u[:, :k]),
        (found.right, back.right, v[:k].T, other_v[:k].T),
    ):
        # scipy takes some small angles from cosines, which end at 1.5e-8
        assert angles == pytest.approx(subspace_angles(one, other)[::-1], abs=1e-7)
        assert angles == pytest.approx(there, abs=1e-9)
        assert angles.min() >= 0
        assert angles.max() <= math.pi / 2 + 1e-12
    assert 0 <= gap(found) <= 1
    assert value_share(found) is not None
    assert -1e-9 <= value_share(found) <= 1 + 1e-9


@QUICK
@given(seeds, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_angles_do_not_depend_on_the_scale_of_either_matrix(
    seed: int, one: float, other: float
) -> None:
    base, tuned = (torch.from_numpy(normal(seed + i, 7, 5)) for i in range(2))
    before, after = rotation(base, tuned, 2), rotation(one * base, other * tuned, 2)
    assert after.left == pytest.approx(before.left, abs=1e-9)
    assert after.right == pytest.approx(before.right, abs=1e-9)


@QUICK
@given(seeds, st.integers(5, 20), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_cka_is_symmetric_bounded_and_blind_to_the_order_of_prompts(
    seed: int, rows: int, width: int, other_width: int, unbiased: bool
) -> None:
    x, y = normal(seed, rows, width), normal(seed + 1, rows, other_width)
    found = linear_cka(x, y, unbiased=unbiased)
    assert linear_cka(y, x, unbiased=unbiased) == pytest.approx(found, abs=1e-12)
    assert (-1 if unbiased else 0) - 1e-12 <= found <= 1 + 1e-12
    order = np.random.default_rng(seed).permutation(rows)
    assert linear_cka(x[order], y[order], unbiased=unbiased) == pytest.approx(found, abs=1e-9)
    assert linear_cka(x, x, unbiased=unbiased) == 1.0


norms = st.floats(0, 1e6)
drifts = st.builds(Drift, norms, norms, st.integers(0, 10), st.integers(10, 20), norms)


@QUICK
@given(st.lists(drifts, min_size=1, max_size=6), st.integers(0, 6))
def test_drifts_add_up_however_they_are_grouped(found: list[Drift], cut: int) -> None:
    whole = together(found)
    parts = together([together(found[:cut]), together(found[cut:])])
    assert parts.change == pytest.approx(whole.change)
    assert parts.size == pytest.approx(whole.size)
    assert (parts.changed, parts.entries) == (whole.changed, whole.entries)
    assert parts.largest == whole.largest
    assert max(one.change for one in found) <= whole.change * (1 + 1e-12)
    assert 0 <= changed_share(whole) <= 1
