"""Several claims at once: p-values that hold for all heads of a family together. [light]

"Every head is within the limit" is an intersection-union claim and needs none of this (Berger 1982,
Technometrics 24:295). "Some head is beyond it" is a union, and does.

- Holm's step-down (Holm 1979, Scand. J. Stat. 6:65) on p-values: no assumption on how heads go
  together, each head's own far tail is needed.
- Step-down max-T by resampling (Westfall & Young 1993, Resampling-Based Multiple Testing, algorithm
  2.8): the largest T over the heads, in draws of pairs that all heads share. Its single-step form
  as lower bounds is `studentised.ratios(...).corrected_low`.
"""

from __future__ import annotations

import numpy as np

from forgetguard.errors import MeasurementError
from forgetguard.gate.resampling import RESAMPLES, FloatArray, IntArray
from forgetguard.gate.studentised import LinearForm, check_rows, resampled_t, t_statistics


def holm(p_values: FloatArray) -> FloatArray:
    """Adjusted p-values, in the order of `p_values` [heads]: a claim is made at the family-wise
    level alpha where its own is at most alpha.

    Raises:
        MeasurementError: a value is not between 0 and 1.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1 or not ((raw >= 0) & (raw <= 1)).all():
        raise MeasurementError(f"p-values must be a list of numbers between 0 and 1, got {raw}")
    order = np.argsort(raw, kind="stable")
    stepped = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def beyond_limit(
    numerators: FloatArray,
    denominators: FloatArray,
    limit: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
) -> FloatArray:
    """One-sided p-values, [heads], of "this head's ratio of means is at most `limit`", each for
    itself: the share of draws whose T is at least that of the data.

    Args:
        numerators, denominators: [heads, n]; the rest as `studentised.ratios`.

    Raises:
        MeasurementError: as `studentised.ratios`.
    """
    observed, draws = _at(numerators, denominators, limit, resamples, seed, clusters)
    return _share(draws, observed)


def max_t(
    numerators: FloatArray,
    denominators: FloatArray,
    limit: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
) -> FloatArray:
    """`beyond_limit`, adjusted for the family by step-down max-T, [heads]: heads whose value is at
    most alpha are beyond the limit, and with 1 - alpha none of them is named wrongly.

    Raises:
        MeasurementError: as `studentised.ratios`.
    """
    observed, draws = _at(numerators, denominators, limit, resamples, seed, clusters)
    order = np.argsort(-observed, kind="stable")
    # The largest T among the heads that are still in question at each step.
    remaining = np.maximum.accumulate(draws[order][::-1], axis=0)[::-1]
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate(_share(remaining, observed[order]))
    return adjusted


def _at(
    numerators: FloatArray,
    denominators: FloatArray,
    limit: float,
    resamples: int,
    seed: int,
    clusters: IntArray | None,
) -> tuple[FloatArray, FloatArray]:
    """T at the limit in the data, [heads], and in the draws, [heads, resamples]."""
    numerators = np.asarray(numerators, dtype=np.float64)
    denominators = np.asarray(denominators, dtype=np.float64)
    check_rows(numerators, denominators, 0.95)
    form = LinearForm.of(numerators, denominators, clusters)
    at = np.full(len(numerators), limit)
    return t_statistics(form, at), resampled_t(form, at, resamples, seed)


def _share(draws: FloatArray, observed: FloatArray) -> FloatArray:
    """The share of draws at or beyond `observed`, the data counted as one of them: never 0."""
    beyond = (draws >= observed[:, None]).sum(axis=1)
    share: FloatArray = (beyond + 1) / (draws.shape[1] + 1)
    return share
