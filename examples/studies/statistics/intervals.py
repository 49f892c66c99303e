"""The intervals that the study compares, as bounds of the rows of [data sets, pairs]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from examples.studies.statistics import bca
from forgetguard.gate import studentised
from forgetguard.gate.linear_form import LinearForm
from forgetguard.gate.resampling import FloatArray, IntArray, cluster_sums, weights_in_chunks
from forgetguard.gate.studentised import Family

Bounds = tuple[FloatArray, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Data sets, each [data sets, pairs], and how their intervals are to be drawn: `confidence` is
    one-sided, `clusters` [pairs] or None."""

    damage: FloatArray
    importance: FloatArray
    confidence: float
    resamples: int
    seed: int
    clusters: IntArray | None

    @property
    def options(self) -> dict[str, Any]:
        """But for the data, as the gate's functions take them."""
        return {
            "confidence": self.confidence,
            "resamples": self.resamples,
            "seed": self.seed,
            "clusters": self.clusters,
            "fail_alpha": 0,  # rows are data sets, and no family
        }

    def units(self) -> tuple[FloatArray, FloatArray]:
        """(damage, importance) by pair, or summed by cluster."""
        if self.clusters is None:
            return self.damage, self.importance
        return cluster_sums(self.damage, self.importance, self.clusters)


Interval = Callable[[Rows], Bounds]


def of_family(found: Family) -> Bounds:
    """(low, high) of its estimates, each [heads]."""
    return (
        np.array([one.low for one in found.estimates]),
        np.array([one.high for one in found.estimates]),
    )


def _fieller(given: Rows) -> Bounds:
    return of_family(studentised.ratios(given.damage, given.importance, **given.options))


def _unguarded(given: Rows) -> Bounds:
    """The gate's without Student's t as the least quantile."""
    form = LinearForm.of(given.damage, given.importance, given.clusters)
    drawn = np.sort(studentised.resampled_t(form, form.values, given.resamples, given.seed), axis=1)
    rank = round((given.resamples + 1) * given.confidence)
    high, low = np.maximum(drawn[:, rank - 1], 0), np.minimum(drawn[:, given.resamples - rank], 0)
    return form.lower(high), form.upper(low)


def _bca(given: Rows) -> Bounds:
    return of_family(bca.ratios_of_means(given.damage, given.importance, **given.options))


def _bootstrap_t(given: Rows) -> Bounds:
    """The ratio itself studentised, by its delta-method standard error (Efron 1981)."""
    damage, importance = given.units()
    values, errors = _delta(damage, importance)
    units = damage.shape[1]
    drawn = np.empty((len(damage), given.resamples))
    for where, weights in weights_in_chunks(units, given.resamples, given.seed):
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
    rank = round((given.resamples + 1) * given.confidence)
    least = drawn[:, given.resamples - rank]
    return values - drawn[:, rank - 1] * errors, values - least * errors


def _normal_theory(given: Rows) -> Bounds:
    """No resampling: the delta method and Student's t."""
    damage, importance = given.units()
    values, errors = _delta(damage, importance)
    reach = errors * stats.t.ppf(given.confidence, damage.shape[1] - 1)
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
