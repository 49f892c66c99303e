"""Ratios of means with studentised Fieller intervals, and lower bounds that hold for a whole family
at once (max-T).

The claim "the ratio is L" is the claim that the mean of `numerator - L denominator` is 0, and that
has a t statistic, T(L), with no ratio in it: a weak denominator does no harm. Its quantiles are not
looked up in a table, they are resampled (the bootstrap-t; Efron 1979), at the observed ratio; an L
whose T lies within them is in the interval. Solving for L is Fieller's quadratic (Fieller 1954, J.
R. Stat. Soc. B 16:175), with resampled quantiles instead of normal ones: Hwang 1995, Statistica
Sinica 5:161.

No quantile is taken nearer to 0 than Student's t with as many degrees of freedom: where tails are
heavy, draws from few pairs show too little of them. That widens intervals by 1 to 6 %, and is what
brings the two-sided ones of heavy-tailed data from 92 to 95 % (docs/statistics.md). Nor is the tail
beyond 2.5 % taken to be heavier, against Student's t, than it is there: eight templates of uneven
size cannot show it.

Of fewer than `FEWEST_RESAMPLED` templates nothing is resampled: their quantile is Student's t, with
one degree of freedom less than there are (fewer where they are of uneven size), and the tails of
several heads add up to the level (Bonferroni). Taking their pairs for independent would miss 15 to
45 times in 100 where half of the spread lies between templates.

For several heads one critical value serves all: the quantile of the largest T over the heads, in
draws of pairs that all heads share (single-step max-T; Westfall & Young 1993, Resampling-Based
Multiple Testing, chapter 2). It needs no far tail of any single head, which few pairs cannot show,
and it does not pay for heads that go together, nor for heads that are surely within
(gate/two_step.py). Where whole templates are drawn it is at most the Student's t that Bonferroni
asks for: draws of eight templates that hold few of them have next to no spread, and with many heads
some always has one.

Fieller's T(L) has the spread at L in it, not at the ratio: it is never more than the denominator's
own t, so with few templates, at the level that many limits and heads leave, the bound of a head
that lost the same share everywhere would be minus infinity. So, of several heads on templates, the
common lower bound of one whose denominator is known (at least `KNOWN` standard errors from 0, by
the base's numbers alone) is that of the ratio itself, (value - L) / error, resampled as the others
and in the same maximum. Below that the bootstrap-t of a ratio breaks down, and Fieller's stays.
Each row's own interval is Fieller's throughout.

Where the denominator cannot be told from 0 at a level, the bound at that level is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from scipy import special

from forgetguard.errors import MeasurementError
from forgetguard.gate import two_step
from forgetguard.gate.linear_form import LinearForm
from forgetguard.gate.resampling import (
    FEWEST_RESAMPLED,
    RESAMPLES,
    FloatArray,
    IntArray,
    enough_resamples,
    weights_in_chunks,
)
from forgetguard.gate.verdict import Estimate

SHOWN = 0.025  # the least level at which draws of as few as eight units show their tail


@dataclass(frozen=True, slots=True)
class Family:
    """Estimates of several heads on the same pairs. `corrected_low`: lower bounds that hold for all
    of them at once. `errors`: their standard errors, with `freedom` degrees of freedom."""

    estimates: tuple[Estimate, ...]
    corrected_low: tuple[float, ...]
    errors: tuple[float, ...] = ()
    freedom: float = math.inf


def ratios(
    numerators: FloatArray,
    denominators: FloatArray,
    *,
    confidence: float = 0.95,
    fail_alpha: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
) -> Family:
    """mean(numerators) / mean(denominators) of each row of [heads, n], all on the same draws.

    Args:
        numerators: [heads, n], such as the damage of each head on each pair.
        denominators: [heads, n], such as the importance on the same pairs; means may be negative.
        confidence: one-sided level of each bound of each estimate.
        fail_alpha: the one-sided error of `corrected_low` for the WHOLE family: the chance that any
            head's lies beyond its true value. Default: 1 - confidence. 0: nothing is claimed, and
            they are minus infinity.
        resamples: bootstrap draws; raised for small `fail_alpha`.
        seed: of the draws. Another order of the pairs is another draw.
        clusters: [n], the cluster of each pair; then whole clusters are drawn.

    Returns:
        The estimates and the simultaneous lower bounds. Rows whose numerator is the denominator
        times a constant read it with no width. With one row, at the default `fail_alpha`,
        `corrected_low` is that row's own lower bound.

    Raises:
        MeasurementError: shapes differ, nothing is there, a value is not finite, or a denominator's
            mean is 0.
    """
    numerators = np.asarray(numerators, dtype=np.float64)
    denominators = np.asarray(denominators, dtype=np.float64)
    check_rows(numerators, denominators, confidence)
    pairs = numerators.shape[1]
    alpha = 1 - confidence
    together = alpha if fail_alpha is None else fail_alpha
    form = LinearForm.of(numerators, denominators, clusters)
    by_cluster = form.units < pairs  # and not each pair its own
    known = form.known() & (by_cluster and len(form.values) > 1)
    draws = None
    if by_cluster and form.units < FEWEST_RESAMPLED:
        below = above = np.full(len(form.values), student_quantile(alpha, form.freedom))
    else:
        wanted = enough_resamples(resamples, min(alpha, together))
        draws = resampled_t(form, form.values, wanted, seed)
        below = quantiles(draws, alpha, form.freedom)
        above = quantiles(-draws, alpha, form.freedom)
        draws = with_known(form, known, draws, seed)
    low, high = form.lower(below), form.upper(-above)
    corrected = common_lower(form, known, draws, together, by_cluster=by_cluster)
    estimates = tuple(
        Estimate(float(value), float(least), float(most), coverage(confidence), pairs)
        for value, least, most in zip(form.values, low, high, strict=True)
    )
    return Family(estimates, tuple(corrected.tolist()), tuple(form.errors().tolist()), form.freedom)


class Draws(TypedDict, total=False):
    """What the estimates of one verdict share, as `ratios` takes it."""

    confidence: float
    resamples: int
    seed: int
    clusters: IntArray | None


def ratio(numerator: FloatArray, denominator: FloatArray, **draws: Unpack[Draws]) -> Estimate:
    """`ratios` of one row: mean(numerator) / mean(denominator), each [n]."""
    rows = np.asarray(numerator)[None], np.asarray(denominator)[None]
    return ratios(*rows, fail_alpha=0, **draws).estimates[0]


def means(values: FloatArray, **draws: Unpack[Draws]) -> tuple[Estimate, ...]:
    """The mean of each row of [heads, n] with its interval: `ratios` to denominators of 1, that is
    the bootstrap-t."""
    return ratios(values, np.ones_like(values), fail_alpha=0, **draws).estimates


def mean(values: FloatArray, **draws: Unpack[Draws]) -> Estimate:
    """`means` of one row, [n]."""
    return means(np.asarray(values)[None], **draws)[0]


def measurable(importance: Estimate) -> bool:
    """Whether an importance can be a denominator: its interval excludes zero, on either side."""
    return importance.low > 0 or importance.high < 0


def resampled_t(form: LinearForm, ratios: FloatArray, resamples: int, seed: int) -> FloatArray:
    """T in draws of units, around what it is in the data, [heads, resamples]: its distribution
    where the true ratio is `ratios`. Rows in which nothing varies read 0."""
    residuals = form.deviations(form.residuals(ratios))
    squares = residuals**2

    def drawn(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        sums = residuals @ weights
        if np.ptp(form.sizes) == 0:
            return sums, squares @ weights - sums**2 / form.units
        mean = sums / (form.sizes @ weights)  # a pair's
        spread = squares @ weights - 2 * mean * ((residuals * form.sizes) @ weights)
        return sums, spread + mean**2 * (form.sizes**2 @ weights)

    return _in_errors(form, drawn, resamples, seed)


def resampled_ratio_t(form: LinearForm, resamples: int, seed: int) -> FloatArray:
    """(ratio - value) / error in draws of units, by the delta method in each, [heads, resamples].
    Rows in which nothing varies read 0."""
    residuals, scale = form.residuals(form.values), form.denominators
    squares, products = residuals**2, residuals * scale

    def drawn(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        off, total = residuals @ weights, scale @ weights
        moved = off / total
        spread = squares @ weights - 2 * moved * (products @ weights)
        return np.sign(total) * off, spread + moved**2 * (scale**2 @ weights)

    return _in_errors(form, drawn, resamples, seed)


def _in_errors(
    form: LinearForm,
    drawn: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    resamples: int,
    seed: int,
) -> FloatArray:
    """What is `drawn`, a sum and its spread, [heads, draws] each, in standard errors of the sum."""
    found = np.empty((len(form.values), resamples))
    for where, weights in weights_in_chunks(form.units, resamples, seed):
        with np.errstate(divide="ignore", invalid="ignore"):
            sums, spread = drawn(weights)
            error = np.sqrt(np.maximum(spread, 0.0) * (form.units / (form.units - 1)))
            found[:, where] = sums / error
    found[np.isnan(found)] = 0.0
    found[form.exact] = 0.0
    return found


def with_known(
    form: LinearForm, known: npt.NDArray[np.bool_], draws: FloatArray, seed: int
) -> FloatArray:
    """`draws` of `resampled_t`, those of the rows that are `known` by `resampled_ratio_t`."""
    if not known.any():
        return draws
    ratio_draws = resampled_ratio_t(form, draws.shape[1], seed)
    return np.where(known[:, None], ratio_draws, draws)


def common_lower(
    form: LinearForm,
    known: npt.NDArray[np.bool_],
    draws: FloatArray | None,
    level: float,
    *,
    by_cluster: bool,
) -> FloatArray:
    """Lower bounds that hold for all heads at once, [heads] (gate/two_step.py): Fieller's, or the
    ratio's own where it is `known`. `draws`, [heads, resamples]: of T; None: Student's t alone."""
    if level <= 0:
        return np.where(form.exact, form.values, -math.inf)
    student = two_step.student_critical(form.freedom)

    def largest(shifts: FloatArray, at: float) -> float:
        if draws is None:
            return student(shifts, at)
        # A T that stays below every quantile that is looked at decides nothing.
        near = draws.max(axis=1) + shifts > student_quantile(max(at, SHOWN), form.freedom)
        top = (draws[near] + shifts[near, None]).max(axis=0, keepdims=True, initial=-math.inf)
        found = float(quantiles(top, at, form.freedom)[0])
        return min(found, student(shifts, at)) if by_cluster and len(draws) > 1 else found

    lowest = two_step.SPENT * level
    least = student(np.zeros(len(form.values)), lowest)
    if draws is not None and len(draws) > 1:
        shown = float(quantiles(-draws.min(axis=0, keepdims=True), lowest, form.freedom)[0])
        least = min(shown, least) if by_cluster else shown

    def bound(critical: FloatArray) -> FloatArray:
        upper = critical < 0
        found = np.where(upper, form.upper(critical), form.lower(critical))
        own = known & np.isfinite(critical)
        found[own] = form.values[own] - critical[own] * form.errors()[own]
        return found

    return two_step.lower_bounds(form, known, level, largest, -least, bound)


def quantiles(draws: FloatArray, alpha: float, freedom: float) -> FloatArray:
    """What a share alpha of each row of [heads, resamples] lies beyond, rounded outwards, [heads].

    At least Student's t with `freedom` degrees. Below `SHOWN` at most as many times Student's t as
    at `SHOWN`: draws of few units that hold fewer still have next to no spread, and would make the
    far tail endless.
    """
    if alpha <= 0:
        return np.full(len(draws), math.inf)
    student = student_quantile(alpha, freedom)
    found = _resampled(draws, alpha)
    if alpha < SHOWN:
        most = _resampled(draws, SHOWN) * (student / student_quantile(SHOWN, freedom))
        found = np.minimum(found, most)
    guarded: FloatArray = np.maximum(found, student)
    return guarded


def student_quantile(alpha: float, freedom: float) -> float:
    """What a share alpha of Student's t with so many degrees of freedom lies beyond; infinite for
    an alpha of 0.

    By the special function: importing scipy.stats takes longer than a gate's statistics.
    """
    return -float(special.stdtrit(freedom, alpha))


def _resampled(draws: FloatArray, alpha: float) -> FloatArray:
    """The quantile itself; infinite where the draws are too few to show it."""
    count = draws.shape[1]
    beyond = math.floor((count + 1) * alpha + 1e-9)  # draws at or beyond it
    if beyond < 1:
        return np.full(len(draws), math.inf)
    found: FloatArray = np.partition(draws, count - beyond, axis=1)[:, count - beyond]
    return found


def coverage(confidence: float) -> float:
    """Of an interval whose two bounds each hold at `confidence`."""
    return round(2 * confidence - 1, 12)


def check_rows(numerators: FloatArray, denominators: FloatArray, confidence: float) -> None:
    if numerators.ndim != 2 or numerators.shape != denominators.shape:
        raise MeasurementError(
            f"numerators of shape {numerators.shape} and denominators of {denominators.shape} "
            "cannot be one ratio: both must be [heads, pairs]"
        )
    if numerators.shape[1] < 2:
        raise MeasurementError(
            f"{numerators.shape[1]} pairs have no spread to estimate: at least 2 are needed"
        )
    if not 0.5 < confidence < 1:
        raise MeasurementError(f"confidence must lie between 0.5 and 1, got {confidence}")
    if not (np.isfinite(numerators).all() and np.isfinite(denominators).all()):
        raise MeasurementError("a value to be averaged is not finite: check the models' outputs")
    if (denominators.sum(axis=1) == 0).any():
        raise MeasurementError("a denominator's mean is 0: check that it is measurable first")
