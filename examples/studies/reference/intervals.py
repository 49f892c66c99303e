"""Intervals over few seeds, and over checkpoints of few configurations. [light but for numpy and
scipy]"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

Interval: TypeAlias = dict[str, Any]
FloatArray: TypeAlias = npt.NDArray[np.float64]
CONFIDENCE = 0.95
DRAWS = 2000  # bounds then wander by 0.01, of intervals 0.4 wide


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of a number that each seed gives, with Student's t interval, two-sided 95 %.

    With n seeds it has n - 1 degrees of freedom: at n = 3 it is 2.5 standard deviations to either
    side, and rests on the seeds being alike normal, which three cannot show. The values stay beside
    it. One seed has no interval.
    """
    found = [float(value) for value in values]
    n = len(found)
    mean = math.fsum(found) / n if n else None
    low = high = None
    if n > 1 and mean is not None:
        half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(found, ddof=1) / math.sqrt(n)
        low, high = mean - float(half), mean + float(half)
    return {"value": mean, "low": low, "high": high, "n": n, "values": found, "method": "t"}


def over_configurations(
    measure: Callable[[FloatArray, FloatArray], float],
    x: Sequence[float],
    y: Sequence[float],
    configurations: Sequence[str],
    *,
    draws: int = DRAWS,
) -> Interval:
    """A number of paired values, with a percentile bootstrap interval (95 %) that draws whole
    configurations, each with all checkpoints of all its seeds: runs that differ in their seed alone
    are alike, and say nothing of another way to train. Rather narrow where configurations are few;
    None where there are fewer than 4."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    names = sorted(set(configurations))
    places = [np.flatnonzero([one == name for one in configurations]) for name in names]
    value = _finite(measure(xs, ys)) if len(xs) > 2 else None
    low = high = None
    if value is not None and len(names) > 3:
        rng = np.random.default_rng(0)
        found = []
        for _ in range(draws):
            drawn = np.concatenate([places[i] for i in rng.integers(len(names), size=len(names))])
            one = _finite(measure(xs[drawn], ys[drawn]))
            if one is not None:
                found.append(one)
        if found:
            low, high = (float(q) for q in np.quantile(found, [0.025, 0.975]))
    return {
        "value": value,
        "low": low,
        "high": high,
        "n": len(names),
        "method": "bootstrap of configurations",
    }


def pearson(x: FloatArray, y: FloatArray) -> float:
    """Pearson's correlation; NaN where one of the two does not vary."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def spearman(x: FloatArray, y: FloatArray) -> float:
    """Spearman's correlation: Pearson's of the ranks."""
    return pearson(ranks(x), ranks(y))


def ranks(values: FloatArray) -> FloatArray:
    """From 1 on, equal values sharing their mean rank: scipy's `rankdata`, in a third of its time
    for the few values of a study, which a bootstrap ranks thousands of times."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    shared: FloatArray = (np.cumsum(count) - (count - 1) / 2)[place]
    return shared


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
