"""McNemar's test looks only at pairs that changed sides, and is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from forgetguard.errors import MeasurementError
from forgetguard.gate.accuracy import BoolArray, mcnemar


def correct(pairs: int, lost: int, won: int) -> tuple[BoolArray, BoolArray]:
    base, tuned = np.ones(pairs, dtype=bool), np.ones(pairs, dtype=bool)
    tuned[:lost] = False
    base[pairs - won :] = False
    return base, tuned


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (5, 0), (0, 5), (7, 2), (3, 3), (1, 9)])
def test_the_p_values_are_those_of_a_fair_coin(lost: int, won: int) -> None:
    found = mcnemar(*correct(40, lost, won))
    tosses = lost + won
    chances = [math.comb(tosses, heads) / 2**tosses for heads in range(tosses + 1)]
    assert (found.lost, found.won) == (lost, won)
    assert found.lost_p == pytest.approx(sum(chances[lost:]))
    if tosses:
        assert found.p == pytest.approx(stats.binomtest(lost, tosses, 0.5).pvalue)
    else:
        assert found.lost_p == found.p == 1.0


def test_pairs_that_kept_their_side_say_nothing() -> None:
    few, many = mcnemar(*correct(12, 6, 1)), mcnemar(*correct(1200, 6, 1))
    assert (few.lost_p, few.p) == (many.lost_p, many.p)


def test_swapping_the_models_mirrors_the_test() -> None:
    base, tuned = correct(40, 6, 2)
    there, back = mcnemar(base, tuned), mcnemar(tuned, base)
    assert there.p == back.p
    assert (there.lost, there.won) == (back.won, back.lost)
    assert there.lost_p < 0.5 < back.lost_p


def test_what_cannot_be_paired_is_an_error() -> None:
    with pytest.raises(MeasurementError):
        mcnemar(np.ones(3, dtype=bool), np.ones(4, dtype=bool))
    with pytest.raises(MeasurementError):
        mcnemar(np.ones(0, dtype=bool), np.ones(0, dtype=bool))
