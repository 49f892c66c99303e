"""BCa intervals (Efron 1987, JASA 82:171) of ratios of means, at levels widened by Student's t for
few pairs (the expanded percentile of Hesterberg 2015, Am. Stat. 69:371): what the gate's intervals
are compared with."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from forgetguard.gate.linear_form import is_exact
from forgetguard.gate.resampling import (
    RESAMPLES,
    FloatArray,
    IntArray,
    cluster_sums,
    enough_resamples,
    weights_in_chunks,
)
from forgetguard.gate.studentised import Family, check_rows, coverage
from forgetguard.gate.verdict import Estimate


def ratios_of_means(
    numerators: FloatArray,
    denominators: FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
    fail_alpha: float | None = None,
) -> Family:
    """mean(numerators) / mean(denominators) of each row of [heads, n], all on the same draws.

    Arguments, results and errors are those of `studentised.ratios`, but that `fail_alpha` is the
    level of each row's own `corrected_low`, not of them all together.
    """
    numerators = np.asarray(numerators, dtype=np.float64)
    denominators = np.asarray(denominators, dtype=np.float64)
    check_rows(numerators, denominators, confidence)
    pairs = numerators.shape[1]
    alpha = 1 - confidence
    corrected = alpha if fail_alpha is None else fail_alpha
    resamples = enough_resamples(resamples, min(alpha, corrected))
    if clusters is not None:
        # A ratio of means is one of sums, so clusters enter as units with their sums.
        numerators, denominators = cluster_sums(numerators, denominators, clusters)
    values = numerators.sum(axis=1) / denominators.sum(axis=1)
    draws = _resampled_ratios(numerators, denominators, resamples, seed)
    wanted = np.array([alpha, 1 - alpha, corrected])
    levels = _bca_levels(values, draws, numerators, denominators, wanted)
    draws.sort(axis=1)
    bounds = np.stack(
        [
            _order_statistic(draws, levels[:, 0], upper=False),
            _order_statistic(draws, levels[:, 1], upper=True),
            _order_statistic(draws, levels[:, 2], upper=False),
        ],
        axis=1,
    )
    if corrected <= 0:
        bounds[:, 2] = -np.inf
    bounds[is_exact(values, numerators, denominators)] = np.nan
    bounds = np.where(np.isnan(bounds), values[:, None], bounds) + 0.0  # -0.0 reads as 0.0
    estimates = tuple(
        Estimate(float(value) + 0.0, float(low), float(high), coverage(confidence), pairs)
        for value, (low, high, _) in zip(values, bounds, strict=True)
    )
    return Family(estimates, tuple(float(low) for low in bounds[:, 2]))


def _resampled_ratios(
    numerators: FloatArray, denominators: FloatArray, resamples: int, seed: int
) -> FloatArray:
    """The ratio in each draw, [heads, resamples]; -inf, inf or nan where a draw's denominator is
    exactly 0."""
    draws = np.empty((numerators.shape[0], resamples))
    for where, weights in weights_in_chunks(numerators.shape[1], resamples, seed):
        with np.errstate(divide="ignore", invalid="ignore"):
            draws[:, where] = (numerators @ weights) / (denominators @ weights)
    return draws


def _bca_levels(
    values: FloatArray,
    draws: FloatArray,
    numerators: FloatArray,
    denominators: FloatArray,
    wanted: FloatArray,
) -> FloatArray:
    """The levels at which to read the draws for `wanted` one-sided levels, [heads, levels].

    Efron's bias correction and jackknife acceleration around Hesterberg's expanded levels. Where
    either is not finite or the correction folds back, the plain levels, that is percentiles.
    """
    units = numerators.shape[1]
    below = (draws < values[:, None]).mean(axis=1)
    ties = (draws == values[:, None]).mean(axis=1)
    spread = math.sqrt(units / (units - 1))
    with np.errstate(all="ignore"):
        bias = stats.norm.ppf(below + ties / 2)[:, None]
        left_out = (numerators.sum(axis=1, keepdims=True) - numerators) / (
            denominators.sum(axis=1, keepdims=True) - denominators
        )
        influence = left_out.mean(axis=1, keepdims=True) - left_out
        skew = (influence**3).sum(axis=1) / (6 * (influence**2).sum(axis=1) ** 1.5)
        shift = bias + spread * stats.t.ppf(wanted, units - 1)[None]
        stretch = 1 - skew[:, None] * shift
        levels = stats.norm.cdf(bias + shift / stretch)
    plain = stats.norm.cdf(spread * stats.t.ppf(wanted, units - 1))
    usable = np.isfinite(levels) & (stretch > 0)
    chosen: FloatArray = np.where(usable, levels, plain[None])
    return chosen


def _order_statistic(draws: FloatArray, levels: FloatArray, *, upper: bool) -> FloatArray:
    """The draws, sorted along the last axis, at each row's level, rounded outwards: nothing is
    interpolated, so an infinite draw stays one draw. nan draws sort last and read as infinite."""
    count = draws.shape[1]
    rank = (count + 1) * levels
    index = (np.ceil(rank) if upper else np.floor(rank)).astype(np.intp) - 1
    found: FloatArray = draws[np.arange(len(draws)), np.clip(index, 0, count - 1)]
    found[np.isnan(found)] = np.inf if upper else -np.inf
    return found
