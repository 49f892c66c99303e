"""Whether learned masks agree by more than chance, and whose heads a tuned model gave up.

Quantities that arXiv 2605.28860's authors use beside its masks: agreement of two masks against a
permutation null, mask shift against what the base needs each head for, and specialist heads. A
permutation null gives one of two columns to the members in every order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from examples.studies.comparison.mask_shift import Mask, check_masks, mask_shift
from forgetguard.anatomy.members import Member
from forgetguard.errors import MeasurementError

DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the circuits (m > 0.5) of two masks.

    Attributes:
        iou: |A & B| / |A | B|; None where both are empty.
        null: the least IoU that at most 2.5 % of permutations exceed: the exact 97.5 % quantile, by
            the hypergeometric distribution of |A & B|; None likewise.
        above: whether `iou` is larger.
    """

    iou: float | None
    null: float | None
    above: bool


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r over members, and the share of permutations in which |r| is as large (two-sided,
    with the observed order counted)."""

    r: float
    p_value: float


def agreement(one: Mask, other: Mask, *, level: float = 0.975) -> Agreement:
    """Two masks over the same members.

    Raises:
        MeasurementError: a mask is empty, a value is not in [0, 1], or the members differ.
    """
    check_masks({"one mask": one, "the other": other})
    first, second = ({member for member, m in mask.items() if m > 0.5} for mask in (one, other))
    shared, sizes = len(first & second), len(first) + len(second)
    if not sizes:
        return Agreement(None, None, False)
    most = int(hypergeom.ppf(level, len(one), len(first), len(second)))
    iou, null = (count / (sizes - count) for count in (shared, most))
    return Agreement(iou, null, iou > null)


def shift_by_necessity(
    tuned: Mask, base: Mask, necessity: Mapping[Member, float], *, draws: int = DRAWS, seed: int = 0
) -> Correlation:
    """How mask shift, m(tuned) - m(base), goes with the base's necessity over members
    (`shares.necessity`): below 0, tuned gave up what the base needs most.

    Raises:
        MeasurementError: as `agreement`; members differ; or one of the two is the same throughout.
    """
    shift = mask_shift(tuned, base)
    if shift.keys() != necessity.keys():
        raise MeasurementError("mask shift: necessity is over other members than the masks")
    x, y = (np.array([values[one] for one in shift]) for values in (shift, necessity))
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    if not size > 0:
        raise MeasurementError("mask shift: no correlation with what is the same for every member")
    draw = np.random.default_rng(seed)
    found = float(x @ y) / size
    drawn = np.array([draw.permutation(x) @ y for _ in range(draws)]) / size
    as_large = int((np.abs(drawn) >= abs(found) * (1 - 1e-12)).sum())
    return Correlation(found, (1 + as_large) / (1 + draws))


def specialists(
    necessity: Mapping[Member, float], sufficiency: Mapping[Member, float]
) -> dict[Member, float]:
    """Necessity times sufficiency of each member, the largest first; 0 where either is negative
    (two harms are no merit).

    Raises:
        MeasurementError: the members differ.
    """
    if necessity.keys() != sufficiency.keys():
        raise MeasurementError("specialists: necessity and sufficiency are over other members")
    found = {one: max(0.0, need) * max(0.0, sufficiency[one]) for one, need in necessity.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
