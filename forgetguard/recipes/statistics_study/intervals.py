"""The intervals that the study compares, as bounds of the rows of [data sets, pairs]. [light]"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

from forgetguard.gate import statistics, studentised
from forgetguard.gate.statistics import Family, FloatArray, IntArray

Bounds = tuple[FloatArray, FloatArray]
Interval = Callable[[FloatArray, FloatArray, float, int, int, IntArray | None], Bounds]


def of_family(found: Family) -> Bounds:
    """(low, high) of its estimates, each [heads]."""
    return (
        np.array([one.low for one in found.estimates]),
        np.array([one.high for one in found.estimates]),
    )


def _fieller(
    damage: FloatArray,
    importance: FloatArray,
    confidence: float,
    resamples: int,
    seed: int,
    clusters: IntArray | None,
) -> Bounds:
    return of_family(
        studentised.ratios(
            damage,
            importance,
            confidence=confidence,
            resamples=resamples,
            seed=seed,
            clusters=clusters,
        )
    )


def _unguarded(
    damage: FloatArray,
    importance: FloatArray,
    confidence: float,
    resamples: int,
    seed: int,
    clusters: IntArray | None,
) -> Bounds:
    """The gate's without Student's t as the least quantile."""
    form = studentised.LinearForm.of(damage, importance, clusters)
    drawn = np.sort(studentised.resampled_t(form, form.values, resamples, seed), axis=1)
    rank = round((resamples + 1) * confidence)
    high, low = np.maximum(drawn[:, rank - 1], 0), np.minimum(drawn[:, resamples - rank], 0)
    return form.lower(high), form.upper(low)


def _bca(
    damage: FloatArray,
    importance: FloatArray,
    confidence: float,
    resamples: int,
    seed: int,
    clusters: IntArray | None,
) -> Bounds:
    return of_family(
        statistics.ratios_of_means(
            damage,
            importance,
            confidence=confidence,
            resamples=resamples,
            seed=seed,
            clusters=clusters,
            family=1,
        )
    )


def _bootstrap_t(
    damage: FloatArray,
    importance: FloatArray,
    confidence: float,
    resamples: int,
    seed: int,
    clusters: IntArray | None,
) -> Bounds:
    """The ratio itself studentised, by its delta-method standard error (Efron 1981)."""
    if clusters is not None:
        damage, importance = statistics.cluster_sums(damage, importance, clusters)
    values, errors = _delta(damage, importance)
    units = damage.shape[1]
    drawn = np.empty((len(damage), resamples))
    for where, weights in statistics.weights_in_chunks(units, resamples, seed):
        n, d = damage @ weights / units, importance @ weights / units
        with np.errstate(all="ignore"):
            ratios = n / d
            squares = (
                damage**2 @ weights
                - 2 * ratios * ((damage * importance) @ weights)
                + ratios**2 * (importance**2 @ weights)
            ) / units
            error = np.sqrt(np.maximum(squares, 0.0) / (units - 1)) / np.abs(d)
            drawn[:, where] = (ratios - values[:, None]) / error
    drawn = np.sort(np.nan_to_num(drawn, nan=0.0, posinf=np.inf, neginf=-np.inf), axis=1)
    rank = round((resamples + 1) * confidence)
    return values - drawn[:, rank - 1] * errors, values - drawn[:, resamples - rank] * errors


def _normal_theory(
    damage: FloatArray,
    importance: FloatArray,
    confidence: float,
    resamples: int,
    seed: int,
    clusters: IntArray | None,
) -> Bounds:
    """No resampling: the delta method and Student's t."""
    del resamples, seed
    if clusters is not None:
        damage, importance = statistics.cluster_sums(damage, importance, clusters)
    values, errors = _delta(damage, importance)
    reach = errors * stats.t.ppf(confidence, damage.shape[1] - 1)
    return values - reach, values + reach


def _delta(damage: FloatArray, importance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The ratios of means and their standard errors."""
    scale = importance.mean(axis=1)
    values = damage.mean(axis=1) / scale
    residuals = damage - values[:, None] * importance
    units = damage.shape[1]
    errors = np.sqrt((residuals**2).sum(axis=1) / (units - 1) / units) / np.abs(scale)
    return values, errors


INTERVALS: Mapping[str, tuple[str, Interval]] = {
    "fieller": ("studentised Fieller, at least t (the gate's)", _fieller),
    "unguarded": ("studentised Fieller", _unguarded),
    "bca": ("BCa, expanded", _bca),
    "bootstrap_t": ("bootstrap-t of the ratio", _bootstrap_t),
    "normal": ("delta method, Student's t", _normal_theory),
}


def percent(flags: npt.NDArray[np.bool_]) -> float:
    """How often, in per cent."""
    return round(100 * float(np.mean(flags)), 3)
