"""Estimates with intervals from paired prompts: ratios of means, means, accuracy drops. [light]

Ratios of means are resampled by pairs, numerator and denominator together, and read off as BCa
intervals (Efron 1987, JASA 82:171) at levels widened by Student's t for few pairs (the expanded
percentile of Hesterberg 2015, Am. Stat. 69:371). In simulation this kept one-sided error rates
nearest to the nominal ones over symmetric, skewed, sparse and weak-denominator data at 16 and 64
pairs; the studentised ratio missed up to 12 % where the denominator is weak, plain percentiles up
to 15 % on skewed damage.

What is left: the upper bound misses more often than 5 % on heavily skewed damage (log-normal, sigma
1: 12 % at 16 pairs, 7.5 % at 64) and where few pairs carry all of it (8 % at 16). With 8 to 32
templates and half the spread between them either bound misses 5 to 6.5 %, where resampling pairs
would miss 12 to 25 %.

`confidence` is everywhere the ONE-SIDED level of each bound, so an `Estimate`, whose `confidence`
is the coverage of the whole interval, carries 2 * confidence - 1.

Families of heads. "Every head is within the limit" is an intersection-union claim: it is false as
soon as one head is beyond, so each head's own upper bound at the one-sided level holds the error
of a wrong pass at alpha whatever the number of heads (Berger 1982, Technometrics 24:295). "Some
head is beyond" is a union: there each head's lower bound is taken at alpha / k (Bonferroni; for the
decision whether ANY head fails, Holm's first step is the same).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from forgetguard.errors import MeasurementError
from forgetguard.gate.verdict import Estimate

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
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


def difference_of_ratios(
    numerator: FloatArray,
    other: FloatArray,
    denominator: FloatArray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    clusters: IntArray | None = None,
) -> Estimate:
    """mean(numerator) / mean(denominator) - mean(other) / mean(denominator), all [n].

    One ratio of means of the differences, so what both numerators share cancels pair by pair.
    Raises as `ratio_of_means`.
    """
    return ratio_of_means(
        np.asarray(numerator, dtype=np.float64) - np.asarray(other, dtype=np.float64),
        denominator,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        clusters=clusters,
    )


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

    Raises:
        MeasurementError: as `ratio_of_means`.
    """
    numerators = np.asarray(numerators, dtype=np.float64)
    denominators = np.asarray(denominators, dtype=np.float64)
    _check(numerators, denominators, confidence)
    heads, pairs = numerators.shape
    size = max(1, heads if family is None else family)
    alpha = 1 - confidence
    resamples = max(resamples, min(MOST_RESAMPLES, math.ceil(10 * size / alpha) - 1))
    if clusters is not None:
        # A ratio of means is one of sums, so clusters enter as units with their sums.
        numerators, denominators = _cluster_sums(numerators, denominators, clusters)
    values = numerators.sum(axis=1) / denominators.sum(axis=1)
    draws = _resampled_ratios(numerators, denominators, resamples, seed)
    wanted = np.array([alpha, 1 - alpha, alpha / size])
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
    bounds[_is_exact(values, numerators, denominators)] = np.nan
    bounds = np.where(np.isnan(bounds), values[:, None], bounds) + 0.0  # -0.0 reads as 0.0
    estimates = tuple(
        Estimate(float(value) + 0.0, float(low), float(high), _coverage(confidence), pairs)
        for value, (low, high, _) in zip(values, bounds, strict=True)
    )
    return Family(estimates, tuple(float(low) for low in bounds[:, 2]))


def _coverage(confidence: float) -> float:
    """Of an interval whose two bounds each hold at `confidence`."""
    return round(2 * confidence - 1, 12)


def _check(numerators: FloatArray, denominators: FloatArray, confidence: float) -> None:
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


def _cluster_sums(
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
    units = numerators.shape[1]
    draws = np.empty((numerators.shape[0], resamples))
    step = max(1, _CHUNK // units)
    for number, start in enumerate(range(0, resamples, step)):
        weights = _weights(units, min(step, resamples - start), seed, number)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = (numerators @ weights) / (denominators @ weights)
        draws[:, start : start + step] = ratios
    return draws


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


def _is_exact(values: FloatArray, numerators: FloatArray, denominators: FloatArray) -> BoolArray:
    """Rows whose numerator is the denominator times a constant: nothing there varies."""
    expected = values[:, None] * denominators
    scale = np.maximum(np.abs(numerators), np.abs(expected)).max(axis=1)
    exact: BoolArray = np.abs(numerators - expected).max(axis=1) <= _ROUNDING * scale
    return exact


# --- accuracy --------------------------------------------------------------------------------


def accuracy_drop(
    base_correct: BoolArray, tuned_correct: BoolArray, *, confidence: float = 0.95
) -> Estimate:
    """Accuracy of base minus accuracy of tuned on the same pairs, [n] bool each.

    The interval is Tango's score interval for a difference of paired proportions (1998, Stat.
    Med. 17:891; enumerated at 16 to 64 pairs, no bound misses by more than 8 % instead of 5 %).
    Where no pair changed sides it is the exact binomial bound 1 - alpha ** (1 / n), the rule of
    three: 16 pairs without a loss are compatible with a loss of 17 %, 64 pairs with 4.6 %; a
    bootstrap would claim 0.

    Pairs count as independent: templates are not accounted for here.

    Raises:
        MeasurementError: the shapes differ or nothing is there.
    """
    base, tuned = np.asarray(base_correct, dtype=bool), np.asarray(tuned_correct, dtype=bool)
    if base.shape != tuned.shape or base.ndim != 1 or base.size == 0:
        raise MeasurementError(
            f"accuracies of shapes {base.shape} and {tuned.shape} cannot be paired: both must be "
            "[pairs], with at least one pair"
        )
    lost, won, pairs = int((base & ~tuned).sum()), int((~base & tuned).sum()), int(base.size)
    low, high = _tango_bounds(lost, won, pairs, confidence)
    return Estimate((lost - won) / pairs, low, high, _coverage(confidence), pairs)


def _tango_score(lost: float, won: float, pairs: float, drop: float) -> float:
    """Tango's statistic for the hypothesis that the drop is `drop`, -1 < drop < 1."""
    linear = -lost - won + (2 * pairs - lost + won) * drop
    constant = -won * drop * (1 - drop)
    root = math.sqrt(max(0.0, linear**2 - 8 * pairs * constant))
    # The larger root; the first form does not cancel where `linear` is positive.
    won_share = -2 * constant / (linear + root) if linear > 0 else (root - linear) / (4 * pairs)
    variance = pairs * (2 * won_share + drop * (1 - drop))
    gap = lost - won - pairs * drop
    if variance <= 0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / math.sqrt(variance)


def _tango_bounds(lost: float, won: float, pairs: float, confidence: float) -> tuple[float, float]:
    """Where the statistic, which falls as the drop grows, crosses the normal quantiles."""
    if lost == won == 0:
        exact = 1 - (1 - confidence) ** (1 / pairs)
        return -exact, exact
    quantile = float(stats.norm.ppf(confidence))

    def crossing(target: float, left: float, right: float) -> float:
        for _ in range(60):  # bisection to below float spacing of a proportion
            middle = (left + right) / 2
            if _tango_score(lost, won, pairs, middle) > target:
                left = middle
            else:
                right = middle
        return (left + right) / 2

    value = (lost - won) / pairs
    return crossing(quantile, -1.0, value), crossing(-quantile, value, 1.0)


# --- how many pairs would decide -------------------------------------------------------------


def pairs_to_decide(estimate: Estimate, limit: float) -> int | None:
    """About how many pairs would bring the interval to one side of the limit, if the value stayed
    and the half-width shrank with 1 / sqrt(n). None where the value is too near the limit for any
    number to be named (over ten thousand times as many)."""
    if estimate.value < limit:
        reach, gap = estimate.high - estimate.value, limit - estimate.value
    else:
        reach, gap = estimate.value - estimate.low, estimate.value - limit
    if gap <= 0 or not math.isfinite(reach) or reach / gap > 100:
        return None
    return max(estimate.n + 1, math.ceil(estimate.n * (reach / gap) ** 2))


def pairs_to_decide_drop(
    base_correct: BoolArray,
    tuned_correct: BoolArray,
    limit: float,
    *,
    confidence: float = 0.95,
) -> int | None:
    """`pairs_to_decide` for an accuracy drop: how many pairs would decide if they changed sides at
    the observed rates. Its bound shrinks with 1 / n, not 1 / sqrt(n), where no pair changed."""
    base, tuned = np.asarray(base_correct, dtype=bool), np.asarray(tuned_correct, dtype=bool)
    lost, won, pairs = int((base & ~tuned).sum()), int((~base & tuned).sum()), int(base.size)

    def decided(factor: float) -> bool:
        low, high = _tango_bounds(lost * factor, won * factor, pairs * factor, confidence)
        return high <= limit or low > limit

    factor = 1.0
    while not decided(factor):
        factor *= 2
        if factor > 10_000:
            return None
    low, high = factor / 2, factor
    while (high - low) * pairs > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return math.ceil(high * pairs)
