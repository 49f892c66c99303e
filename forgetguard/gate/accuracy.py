"""Accuracy of two models on the same prompt pairs: the drop with its interval.

Pairs of one template often change sides together, so they tell less than as many independent pairs.
Where templates are known, counts are divided by the design effect, the variance of the drop by
template over its variance by pair (Rao & Scott 1992, Biometrics 48:577), and quantiles are
Student's t with as many degrees of freedom as there are templates, less one.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from forgetguard.errors import MeasurementError
from forgetguard.gate.linear_form import LinearForm
from forgetguard.gate.resampling import FloatArray, IntArray
from forgetguard.gate.studentised import coverage
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.requirements import wilson

BoolArray = npt.NDArray[np.bool_]


def accuracy_drop(
    base_correct: BoolArray,
    tuned_correct: BoolArray,
    *,
    confidence: float = 0.95,
    clusters: IntArray | None = None,
) -> Estimate:
    """Accuracy of base minus accuracy of tuned on the same pairs, [n] bool each; `clusters`: [n],
    the template of each, where pairs are not independent.

    The interval is Tango's score interval for a difference of paired proportions (1998, Stat.
    Med. 17:891; enumerated at 16 to 64 pairs, no bound misses by more than 8 % instead of 5 %).
    Where no pair changed sides it is the exact binomial bound 1 - alpha ** (1 / n), the rule of
    three: 16 pairs without a loss are compatible with a loss of 17 %, 64 pairs with 4.6 %; a
    bootstrap would claim 0.

    Raises:
        MeasurementError: the shapes differ or nothing is there.
    """
    lost, won, pairs = changed_sides(base_correct, tuned_correct)
    effect, freedom = 1.0, math.inf
    if clusters is not None and lost + won > 0:
        loss = np.asarray(base_correct, dtype=np.float64) - np.asarray(tuned_correct)
        effect, freedom = design_effect(loss, clusters)
    low, high = drop_bounds(
        lost / effect, won / effect, pairs / effect, confidence, freedom=freedom
    )
    return Estimate((lost - won) / pairs, low, high, coverage(confidence), pairs)


def design_effect(values: FloatArray, clusters: IntArray) -> tuple[float, float]:
    """(how many times as large the variance of the mean of [n] values is by cluster as it is by
    pair, at least 1; the degrees of freedom of the former).

    The variance by cluster, and its degrees of freedom, are those of the gate's other means.
    """
    rows, ones = values[None], np.ones((1, len(values)))
    together, alone = LinearForm.of(rows, ones, clusters), LinearForm.of(rows, ones, None)
    by_cluster, by_pair = (
        float((one.deviations(one.numerators) ** 2).sum() * one.units / (one.units - 1))
        for one in (together, alone)
    )
    return (max(1.0, by_cluster / by_pair) if by_pair > 0 else 1.0), together.freedom


def accuracy(
    right: BoolArray, *, confidence: float = 0.95, clusters: IntArray | None = None
) -> Estimate:
    """The share of [n] pairs that are answered right, `clusters` as of `accuracy_drop`.

    The interval is Wilson's, of pairs divided by the design effect: near 1 the bootstrap of a mean
    has hardly a spread to go by (with one of 64 wrong most resamples of templates have none, and no
    bound).
    """
    values = np.asarray(right, dtype=np.float64)
    effect, freedom = 1.0, math.inf
    if clusters is not None and 0 < values.sum() < values.size:
        effect, freedom = design_effect(values, clusters)
    share, quantile = float(values.mean()), float(special.stdtrit(freedom, confidence))
    low, high = wilson(share, values.size / effect, quantile)
    return Estimate(share, low, high, coverage(confidence), values.size)


def flips(
    values: FloatArray,
    unit: float,
    *,
    confidence: float = 0.95,
    clusters: IntArray | None = None,
) -> Estimate:
    """The mean of [n] values from -1 to 1, of which the positive ones are 1 (a document that was
    lost) and the negative ones about `-unit` (less what guessing flips; over another model 1), with
    its interval.

    The share of either has Wilson's bounds, and the two are put together as those of a difference
    whose shares exclude each other (Newcombe 1998, Stat. Med. 17:873, method 10 in form): a
    bootstrap of few values that are not 0 has no bound. Enumerated at 24 and more documents with a
    truth of 0 to 0.4, no upper bound misses by more than 6.1 % instead of 5 %, no lower one by more
    than 9.3 %; at 0.25 % no lower one from 32 documents on by more than 0.75 %. `clusters` as of
    `accuracy_drop`.
    """
    effect, freedom = 1.0, math.inf
    if clusters is not None and values.any():
        effect, freedom = design_effect(values, clusters)
    quantile, count = float(special.stdtrit(freedom, confidence)), values.size / effect
    lost, less = np.maximum(values, 0), np.maximum(-values, 0)
    unit = float(less.max()) or unit
    share, other = float(lost.mean()), float(less.mean()) / unit if unit else 0.0
    low, high = wilson(share, count, quantile)
    if share == 0:
        high = max(high, 1 - (1 - confidence) ** (1 / count))
    other_low, other_high = wilson(other, count, quantile)
    odds = share * other / ((1 - share) * (1 - other)) if share + other < 1 else 1.0

    def off(one: float, two: float) -> float:
        return math.sqrt(one**2 + two**2 + 2 * math.sqrt(odds) * one * two)

    value = share - unit * other
    down = off(share - low, unit * (other_high - other))
    up = off(high - share, unit * (other - other_low))
    return Estimate(value, value - down, value + up, coverage(confidence), values.size)


def changed_sides(base_correct: BoolArray, tuned_correct: BoolArray) -> tuple[int, int, int]:
    """How many of [n] pairs only base got right, only tuned got right, and n.

    Raises:
        MeasurementError: as `accuracy_drop`.
    """
    base, tuned = np.asarray(base_correct, dtype=bool), np.asarray(tuned_correct, dtype=bool)
    if base.shape != tuned.shape or base.ndim != 1 or base.size == 0:
        raise MeasurementError(
            f"accuracies of shapes {base.shape} and {tuned.shape} cannot be paired: both must be "
            "[pairs], with at least one pair"
        )
    return int((base & ~tuned).sum()), int((~base & tuned).sum()), int(base.size)


def drop_score(
    lost: npt.ArrayLike, won: npt.ArrayLike, pairs: float | FloatArray, drop: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """Tango's statistic for the hypothesis that the drop is `drop`, -1 < drop < 1; elementwise.

    Counts need not be whole. It is beyond z(1 - alpha) where the lower bound at alpha is beyond
    `drop`."""
    lost, won = np.asarray(lost, dtype=np.float64), np.asarray(won, dtype=np.float64)
    drop = np.asarray(drop, dtype=np.float64)
    linear = -lost - won + (2 * pairs - lost + won) * drop
    constant = -won * drop * (1 - drop)
    root = np.sqrt(np.maximum(0.0, linear**2 - 8 * pairs * constant))
    gap = lost - won - pairs * drop
    with np.errstate(divide="ignore", invalid="ignore"):
        # The larger root; the first form does not cancel where `linear` is positive.
        won_share = np.where(
            linear > 0, -2 * constant / (linear + root), (root - linear) / (4 * pairs)
        )
        variance = pairs * (2 * won_share + drop * (1 - drop))
        score = np.where(variance > 0, gap / np.sqrt(variance), np.sign(gap) * np.inf)
    return np.where(gap == 0, 0.0, score)


def drop_bounds(
    lost: float, won: float, pairs: float, confidence: float, *, freedom: float = math.inf
) -> tuple[float, float]:
    """The bounds of `accuracy_drop` from counts, each one-sided at `confidence`; counts need not be
    whole.

    Where Tango's statistic, which falls as the drop grows, crosses the quantiles of Student's t
    with `freedom` degrees; infinitely many are the normal's."""
    if lost == won == 0:
        exact = 1 - (1 - confidence) ** (1 / pairs)
        return -exact, exact
    quantile = float(special.stdtrit(freedom, confidence))

    def crossing(target: float, left: float, right: float) -> float:
        for _ in range(10):  # 64 ** 10 steps: below the spacing of floats
            grid = np.linspace(left, right, 65)
            above = int((drop_score(lost, won, pairs, grid[1:-1]) > target).sum())
            left, right = float(grid[above]), float(grid[above + 1])
        return (left + right) / 2

    value = (lost - won) / pairs
    return crossing(quantile, -1.0, value), crossing(-quantile, value, 1.0)
