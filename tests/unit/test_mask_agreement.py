"""Agreement of masks against every permutation, mask shift against necessity, and specialists."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import pearsonr

from examples.studies.comparison.agreement import agreement, shift_by_necessity, specialists
from forgetguard.anatomy.members import Head
from forgetguard.errors import MeasurementError

HEADS = [Head(0, index) for index in range(6)]


def over_heads(values: list[float]) -> dict[Head, float]:
    return dict(zip(HEADS, values, strict=True))


def iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    pairs = [(a > 0.5, b > 0.5) for a, b in zip(one, other, strict=True)]
    return sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.975])
def test_the_null_is_the_quantile_over_all_permutations(level: float) -> None:
    one, other = (1, 1, 1, 0, 0, 0), (0.9, 0.2, 0.8, 0.1, 0.7, 0)
    found = agreement(over_heads([*one]), over_heads([*other]), level=level)
    drawn = sorted(iou(one, order) for order in permutations(other))
    assert found.iou == iou(one, other)
    assert found.null == drawn[int(np.ceil(level * len(drawn))) - 1]
    assert found.above is (found.iou > found.null)


def test_equal_masks_agree_above_chance_and_empty_ones_say_nothing() -> None:
    same = over_heads([1, 1, 1, 0, 0, 0])
    found = agreement(same, same)
    assert (found.iou, found.null, found.above) == (1, 1, False)  # 1 order in 20 is as good
    assert agreement(same, same, level=0.94).above
    nothing = over_heads([0.0] * 6)
    assert agreement(nothing, nothing).iou is None


def test_shift_against_necessity_is_pearsons_r_with_the_share_of_permutations() -> None:
    base = [1.0, 0.9, 0.5, 0.4, 0.1, 0.0]
    tuned = [0.2, 0.5, 0.4, 0.5, 0.1, 0.3]
    need = [0.7, 0.3, 0.2, 0.1, 0.0, -0.1]
    found = shift_by_necessity(over_heads(tuned), over_heads(base), over_heads(need))
    shift = np.subtract(tuned, base)
    assert found.r == pytest.approx(pearsonr(shift, need).statistic)
    assert found.r < -0.9
    exact = np.mean(
        [
            abs(pearsonr(order, need).statistic) >= abs(found.r) - 1e-12
            for order in permutations(shift)
        ]
    )
    assert found.p_value == pytest.approx(exact, abs=0.004)
    with pytest.raises(MeasurementError, match="same for every member"):
        shift_by_necessity(over_heads(base), over_heads(base), over_heads(need))


def test_a_specialist_is_needed_and_enough_and_two_harms_are_no_merit() -> None:
    found = specialists(
        over_heads([0.5, 0.9, -0.5, 0, 0.4, 0.1]), over_heads([0.5, 0.1, -0.5, 1, 0.9, 0.1])
    )
    assert list(found)[:3] == [Head(0, 4), Head(0, 0), Head(0, 1)]
    assert found[Head(0, 4)] == pytest.approx(0.36)
    assert found[Head(0, 2)] == 0
