"""Ratios of means, and means, over prompt pairs, with resampled intervals. [light]

Ratios of means are resampled by pairs, numerator and denominator together, and read off as BCa
intervals (Efron 1987, JASA 82:171) at levels widened by Student's t for few pairs (the expanded
percentile of Hesterberg 2015, Am. Stat. 69:371). They are for plain means, such as an
importance, and for numbers that no verdict rests on. Verdicts rest on `studentised.ratios`, whose
bounds miss less on skewed data and at small levels; docs/statistics.md compares the two.

`confidence` is everywhere the ONE-SIDED level of each bound, so an `Estimate`, whose `confidence`
is the coverage of the whole interval, carries 2 * confidence - 1.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from forgetguard.errors import MeasurementError
from forgetguard.gate.verdict import Estimate

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

RESAMPLES = 9999  # (RESAMPLES + 1) * alpha is whole for the usual alphas
MOST_RESAMPLES = 49_999
FEWEST_CLUSTERS = 8  # fewer clusters say too little of their own spread: then pairs are resampled
_CHUNK = 2_000_000  # resampled weights held at a time
_ROUNDING = 16 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Family:
    """Estimates of several heads on the same pairs. `corrected_low` is each one's lower bound at
    alpha / k, which holds for all of them at once."""

    estimates: tuple[Estimate, ...]
    corrected_low: tuple[float, ...]


def derive_seed(seed: int, *names: str) -> int:
    """A seed that depends on what is resampled and not on when: run seed and names, hashed."""
    text = "\x1f".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def cluster_codes(names: Sequence[str]) -> IntArray | None:
    """Which cluster each pair belongs to, [n], from its template's name.

    Pairs without a template are clusters of their own. None where there are fewer than
    `FEWEST_CLUSTERS` clusters: resampling those would understate their spread, so pairs are
    resampled, and the interval speaks of these templates only.
    """
    codes: dict[str, int] = {}
    found = [
        codes.setdefault(f"t{name}" if name else f"p{position}", len(codes))
        for position, name in enumerate(names)
    ]
    return np.asarray(found, dtype=np.intp) if len(codes) >= FEWEST_CLUSTERS else None


def ratio_of_means(
    numerator: FloatArray,
    denominator: FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
) -> Estimate:
    """mean(numerator) / mean(denominator) with its interval.

    Args:
        numerator: [n], such as the damage on each pair.
        denominator: [n], such as the importance on the same pairs; its mean may be negative.
        confidence: one-sided level of each bound.
        resamples: bootstrap draws.
        seed: of the draws. Another order of the pairs is another draw: order them by content
            where the interval must not depend on it.
        clusters: [n], the cluster of each pair; then whole clusters are drawn.

    Returns:
        The estimate. A numerator that is 0 throughout, or proportional to the denominator, reads
        the exact value with an interval of no width.

    Raises:
        MeasurementError: shapes differ, nothing is there, a value is not finite, or the
            denominator's mean is 0.
    """
    family = ratios_of_means(
        np.asarray(numerator, dtype=np.float64)[None],
        np.asarray(denominator, dtype=np.float64)[None],
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        clusters=clusters,
    )
    return family.estimates[0]


def mean(
    values: FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
) -> Estimate:
    """The mean of [n] values with its interval; arguments and errors as `ratio_of_means`."""
    values = np.asarray(values, dtype=np.float64)
    return means(
        values[None], confidence=confidence, resamples=resamples, seed=seed, clusters=clusters
    )[0]


def means(
    values: FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
) -> tuple[Estimate, ...]:
    """The means of the rows of [heads, n] with their intervals; as `ratios_of_means`."""
    values = np.asarray(values, dtype=np.float64)
    return ratios_of_means(
        values,
        np.ones_like(values),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        clusters=clusters,
        family=1,
    ).estimates


def measurable(importance: Estimate) -> bool:
    """Whether an importance can be a denominator: its interval excludes zero, on either side."""
    return importance.low > 0 or importance.high < 0


def ratios_of_means(
    numerators: FloatArray,
    denominators: FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
    family: int | None = None,
    fail_alpha: float | None = None,
) -> Family:
    """`ratio_of_means` of each row of [heads, n], all rows on the same draws of pairs.

    Args:
        numerators: [heads, n].
        denominators: [heads, n].
        confidence: one-sided level of each bound.
        resamples: bootstrap draws; raised, up to `MOST_RESAMPLES`, for large families.
        seed: of the draws.
        clusters: [n] or None.
        family: how many heads `corrected_low` is corrected for; default: the rows.
        fail_alpha: instead, the one-sided level of each row's `corrected_low`; 0: nothing is
            claimed, and they are minus infinity.

    Raises:
        MeasurementError: as `ratio_of_means`.
    """
    numerators = np.asarray(numerators, dtype=np.float64)
    denominators = np.asarray(denominators, dtype=np.float64)
    check_rows(numerators, denominators, confidence)
    heads, pairs = numerators.shape
    alpha = 1 - confidence
    corrected = alpha / max(1, heads if family is None else family)
    if fail_alpha is not None:
        corrected = fail_alpha
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


def enough_resamples(resamples: int, alpha: float) -> int:
    """`resamples`, raised, up to `MOST_RESAMPLES`, until ten draws lie beyond the level `alpha`; a
    level of 0 asks for none."""
    wanted = 0 if alpha <= 0 else math.ceil(10 / alpha) - 1
    return max(resamples, min(MOST_RESAMPLES, wanted))


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


def cluster_sums(
    numerators: FloatArray, denominators: FloatArray, clusters: IntArray
) -> tuple[FloatArray, FloatArray]:
    codes = np.asarray(clusters)
    if codes.shape != numerators.shape[1:]:
        raise MeasurementError(
            f"clusters of shape {codes.shape} do not label {numerators.shape[1]} pairs"
        )
    _, codes = np.unique(codes, return_inverse=True)
    member = np.zeros((len(codes), int(codes.max()) + 1))
    member[np.arange(len(codes)), codes] = 1.0
    if member.shape[1] < 2:
        raise MeasurementError("one cluster has no spread to estimate: resample pairs instead")
    return numerators @ member, denominators @ member


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


def weights_in_chunks(units: int, resamples: int, seed: int) -> Iterator[tuple[slice, FloatArray]]:
    """How often each unit is drawn in each resample: which resamples, and [units, of them]."""
    step = max(1, _CHUNK // units)
    for number, start in enumerate(range(0, resamples, step)):
        count = min(step, resamples - start)
        yield slice(start, start + count), _weights(units, count, seed, number)


@functools.lru_cache(maxsize=1)
def _weights(units: int, draws: int, seed: int, chunk: int) -> FloatArray:
    """How often each unit is drawn in each of `draws` resamples, [units, draws]. The last is kept:
    one verdict reads several estimates off the same draws."""
    rng = np.random.default_rng((seed, chunk))
    drawn = rng.integers(0, units, size=(draws, units))
    drawn += np.arange(draws)[:, None] * units
    counts = np.bincount(drawn.ravel(), minlength=draws * units).reshape(draws, units)
    weights = np.ascontiguousarray(counts.T, dtype=np.float64)
    weights.setflags(write=False)
    return weights


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


def is_exact(
    values: FloatArray, numerators: FloatArray, denominators: FloatArray
) -> npt.NDArray[np.bool_]:
    """Rows whose numerator is the denominator times a constant: nothing there varies."""
    expected = values[:, None] * denominators
    scale = np.maximum(np.abs(numerators), np.abs(expected)).max(axis=1)
    exact: npt.NDArray[np.bool_] = np.abs(numerators - expected).max(axis=1) <= _ROUNDING * scale
    return exact
