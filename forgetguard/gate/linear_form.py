"""Ratios of means as claims without a ratio: that the mean of `numerator - L denominator` is 0.

What that needs of the data, by unit (a pair, or a cluster with its sums): residuals, their spread,
and Fieller's quadratic (Fieller 1954, J. R. Stat. Soc. B 16:175).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forgetguard.gate.resampling import FloatArray, IntArray, cluster_sums

KNOWN = 3.0  # standard errors of a denominator

_ROUNDING = 16 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class LinearForm:
    """Rows whose ratio of means is asked for, in units (pairs, or clusters with their sums), turned
    so that every denominator's mean is positive.

    numerators, denominators: [heads, units]. sizes: [units], the pairs of each. values: [heads],
    the ratios. exact: [heads], rows in which nothing varies.

    A cluster deviates by what its pairs add to the mean of all pairs, not by how many pairs it has:
    the linearised variance of a mean over clusters of uneven size (Cochran 1977, Sampling
    Techniques, section 9A.5).
    """

    numerators: FloatArray
    denominators: FloatArray
    sizes: FloatArray
    values: FloatArray
    exact: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @classmethod
    def of(
        cls, numerators: FloatArray, denominators: FloatArray, clusters: IntArray | None
    ) -> LinearForm:
        sizes = np.ones(numerators.shape[1])
        if clusters is not None:
            numerators, denominators = cluster_sums(numerators, denominators, clusters)
            sizes = np.unique(clusters, return_counts=True)[1].astype(np.float64)
        sign = np.sign(denominators.sum(axis=1, keepdims=True))
        numerators, denominators = numerators * sign, denominators * sign
        values = numerators.sum(axis=1) / denominators.sum(axis=1) + 0.0  # -0.0 reads as 0.0
        exact = is_exact(values, numerators, denominators)
        return cls(numerators, denominators, sizes, values, exact)

    @property
    def units(self) -> int:
        """Pairs or clusters."""
        return len(self.sizes)

    @property
    def freedom(self) -> float:
        """Degrees of freedom: units less one; of clusters of uneven size, their effective number
        less one (Kish 1965, Survey Sampling, section 11.7)."""
        return float(self.sizes.sum() ** 2 / (self.sizes**2).sum()) - 1

    def residuals(self, ratios: FloatArray) -> FloatArray:
        """[heads, units]: numerator - ratio * denominator. Their mean is 0 at `values`."""
        return self.numerators - ratios[:, None] * self.denominators

    def deviations(self, sums: FloatArray) -> FloatArray:
        """What [heads, units] adds to the mean of the pairs beyond its share."""
        share = self.sizes / self.sizes.sum()
        found: FloatArray = sums - sums.sum(axis=1, keepdims=True) * share
        return found

    def spread(self, sums: FloatArray) -> FloatArray:
        """Standard errors of the totals of [heads, units], [heads]."""
        squares = (self.deviations(sums) ** 2).sum(axis=1)
        found: FloatArray = np.sqrt(squares * self.units / (self.units - 1))
        return found

    def errors(self) -> FloatArray:
        """Standard errors of the ratios, by the delta method, [heads]."""
        return np.where(self.exact, 0.0, self.errors_at(self.values))

    def errors_at(self, ratios: FloatArray) -> FloatArray:
        """Standard errors of numerator - ratio * denominator, over the denominator, [heads]."""
        found: FloatArray = self.spread(self.residuals(ratios)) / self.denominators.sum(axis=1)
        return found

    def known(self) -> npt.NDArray[np.bool_]:
        """Whether the mean of the denominators, which vary, lies `KNOWN` errors from 0, [heads]."""
        error, total = self.spread(self.denominators), self.denominators.sum(axis=1)
        found: npt.NDArray[np.bool_] = (total >= KNOWN * error) & (error > _ROUNDING * total)
        return found

    def lower(self, quantiles: FloatArray) -> FloatArray:
        """The least ratio with T at most `quantiles`, [heads], which are not negative; minus
        infinity where there is none."""
        return self._solve(quantiles, -1.0)

    def upper(self, quantiles: FloatArray) -> FloatArray:
        """The largest ratio with T at least `quantiles`, which are not positive, as `lower`."""
        return self._solve(quantiles, 1.0)

    def _solve(self, quantiles: FloatArray, side: float) -> FloatArray:
        """The root on `side` of sum(n - L d)^2 = q^2 var(sum(n - L d))."""
        n, d = self.numerators.sum(axis=1), self.denominators.sum(axis=1)
        off_n, off_d = self.deviations(self.numerators), self.deviations(self.denominators)
        with np.errstate(all="ignore"):
            square = quantiles**2 * self.units / (self.units - 1)
            a = d**2 - square * (off_d**2).sum(axis=1)
            b = n * d - square * (off_n * off_d).sum(axis=1)
            c = n**2 - square * (off_n**2).sum(axis=1)
            found = (b + side * np.sqrt(np.maximum(b**2 - a * c, 0.0))) / a
        bounded = (a > 0) & np.isfinite(square)
        found = np.where(bounded, found, side * math.inf)
        # The estimate lies within, whatever is rounded.
        found = np.maximum(found, self.values) if side > 0 else np.minimum(found, self.values)
        solved: FloatArray = np.where(self.exact, self.values, found) + 0.0
        return solved


def is_exact(
    values: FloatArray, numerators: FloatArray, denominators: FloatArray
) -> npt.NDArray[np.bool_]:
    """Rows whose numerator is the denominator times a constant: nothing there varies."""
    expected = values[:, None] * denominators
    scale = np.maximum(np.abs(numerators), np.abs(expected)).max(axis=1)
    exact: npt.NDArray[np.bool_] = np.abs(numerators - expected).max(axis=1) <= _ROUNDING * scale
    return exact
