"""What a number of pairs can show: how many would decide, and which true value would be seen.

`detectable` answers the question that a verdict leaves open: how bad must a checkpoint be, for as
many pairs to fail it with 80 %? The limit fails where the statistic (value - limit) / error is
beyond its critical value, which has the degrees of freedom, the run's limits and the limit's heads
in it. So the true value must lie as many errors beyond the limit as a non-central t needs to pass
that value with 80 %; and its error is not today's, for damage that grows spreads more.

How much more, nobody can know of damage that is not there. So there are two answers: `detectable`
speaks of this checkpoint, hurt more in the way in which it is, or, where it is not, as the median
of real damage is; `detectable_sparse` of damage of any kind that has nothing to do with importance,
as far as a pair loses nothing or all: no spread of what lies between is larger.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from forgetguard.gate.accuracy import (
    BoolArray,
    changed_sides,
    design_effect,
    drop_bounds,
    drop_score,
)
from forgetguard.gate.resampling import FloatArray, IntArray
from forgetguard.gate.verdict import Estimate

POWER = 0.80
# The spread of damage about its ratio to importance, as a share of the mean damage: the medians of
# real damage (docs/statistics.md, Power).
OVER_PAIRS, OVER_TEMPLATES = 1.0, 0.4
MOST_ENUMERATED = 1024  # pairs up to which changes of sides are enumerated


def growth(pairs: int, templates: float = math.inf) -> float:
    """By how much the error of a ratio grows with its value: damage spreads over pairs, and over
    the means of templates, by these shares of itself."""
    return math.sqrt(OVER_PAIRS**2 / pairs + OVER_TEMPLATES**2 / templates)


def detectable(
    value: float,
    reach: float,
    error: float,
    limit: float,
    *,
    freedom: float = math.inf,
    growth: float = 0.0,
    most: float | None = None,
    power: float = POWER,
) -> float | None:
    """The smallest true value, at or beyond `limit`, that the limit FAILS with the probability
    `power`: the solution of value - limit = distance * error(value), or `most`, where that is less.

    The distance is that of a non-central t (approximated as in Johnson & Welch 1940, Biometrika
    31:362). The squared error at another value x is error^2 + growth^2 (x^2 - value^2): a part that
    stays, and one that grows with the damage.

    Args:
        value: the estimate.
        reach: the distance from it to the lower bound at which the limit fails.
        error: its standard error.
        freedom: degrees of freedom of `error`.
        growth: by how much the error grows with the value, where damage is all of its spread.
        most: what is seen of damage of any kind (`detectable_sparse`), where that is known.

    Returns:
        `most` where no finite bound says how large the error is, or where damage of any size would
        be seen more rarely, since its spread grows as fast as itself.
    """
    if not (math.isfinite(reach) and error > 0 and freedom >= 1):
        return most
    distance = _distance(reach / error, freedom, power)
    growth = min(growth, error / abs(value)) if value else growth
    fixed = max(0.0, error**2 - (growth * value) ** 2)
    slope = 1 - (distance * growth) ** 2
    if slope <= 0:
        return most
    inner = (limit * distance * growth) ** 2 + slope * distance**2 * fixed
    found = float((limit + math.sqrt(inner)) / slope)
    return found if most is None else min(found, most)


def detectable_sparse(
    reach: float,
    error: float,
    limit: float,
    *,
    pairs: int,
    loss: float,
    unevenness: float = 0.0,
    freedom: float = math.inf,
    templates: float = math.inf,
    power: float = POWER,
) -> float | None:
    """The smallest true value, at or beyond `limit`, from which on the limit FAILS with at least
    the probability `power` even if every pair loses nothing or `loss` of its importance, beside the
    `error` that was seen: the variance of such damage about its ratio x to the mean importance is
    x (loss - x) times the mean squared importance. Between templates it is taken to spread as real
    damage does (`OVER_TEMPLATES`), for else one template could carry all.

    Arguments as of `detectable`, and `unevenness`: the squared coefficient of variation of
    importance over pairs. To a thousandth of `loss`. None where not even `loss` is seen.
    """
    if not (math.isfinite(reach) and error > 0 and freedom >= 1) or limit >= loss:
        return None
    true = np.linspace(limit, loss, 1001)
    spread = (1 + unevenness) * true * (loss - true)
    errors = np.sqrt(error**2 + _squared_error(true, spread, pairs, templates))
    return _seen_from(true, _distance(reach / error, freedom, power) * errors)


def unevenness(importance: FloatArray) -> FloatArray:
    """The squared coefficient of variation over pairs of each row of [row, pair], [row]."""
    found: FloatArray = importance.var(axis=1) / importance.mean(axis=1) ** 2
    return found


def _squared_error(
    true: FloatArray, spread: FloatArray, pairs: int, templates: float
) -> FloatArray:
    """Of a mean over pairs whose variance is `spread`, part of it between templates."""
    between: FloatArray = np.minimum((OVER_TEMPLATES * true) ** 2, spread)
    return spread / pairs + between / templates


def _seen_from(true: FloatArray, distances: FloatArray) -> float | None:
    """From which of the `true` values on, rising from the limit, all lie as far beyond it as they
    must; None where not even the last does."""
    first = int(np.flatnonzero(true - true[0] < distances)[-1]) + 1
    return float(true[first]) if first < len(true) else None


def _distance(critical: float, freedom: float, power: float) -> float:
    """How many errors beyond the limit a true value lies whose t statistic passes `critical` with
    the probability `power`."""
    shrink = 1 - 1 / (4 * freedom)
    return critical * shrink + float(
        special.ndtri(power) * math.sqrt(1 + critical**2 / (2 * freedom))
    )


def detectable_drop(
    lost: int,
    won: int,
    pairs: int,
    limit: float,
    alpha: float,
    power: float = POWER,
    *,
    templates: float = math.inf,
) -> float | None:
    """The smallest true drop of accuracy that the limit FAILS with the probability `power`, if
    pairs are won at the observed rate: exact, by enumerating what may change sides; of pairs of
    templates, between which drops spread as real damage does (`OVER_TEMPLATES`), from the error of
    such a drop.

    Args:
        lost, won, pairs: as of `accuracy.drop_bounds`.
        alpha: one-sided level of the lower bound.
        templates: how many are resampled; infinitely many where pairs are.

    Returns:
        None where no drop is seen so often, or there are more than a thousand pairs (then take
        `detectable`).
    """
    if math.isfinite(templates):
        return _detectable_of_templates(won / pairs, pairs, limit, alpha, power, templates)
    if pairs > MOST_ENUMERATED or not 0 < alpha < 0.5:
        return None
    won_rate = won / pairs
    grid_lost, grid_won = _likely_counts(won_rate, pairs)
    beyond = drop_score(grid_lost, grid_won, pairs, limit) > -special.ndtri(alpha)
    grid_lost, grid_won = grid_lost[beyond], grid_won[beyond]
    coefficients = (
        special.gammaln(pairs + 1)
        - special.gammaln(grid_lost + 1)
        - special.gammaln(grid_won + 1)
        - special.gammaln(pairs - grid_lost - grid_won + 1)
    )

    def chance(lost_rate: float) -> float:
        kept = max(0.0, 1 - lost_rate - won_rate)
        logarithms = (
            coefficients
            + special.xlogy(grid_lost, lost_rate)
            + special.xlogy(grid_won, won_rate)
            + special.xlogy(pairs - grid_lost - grid_won, kept)
        )
        return float(np.exp(logarithms).sum())

    low, high = max(0.0, limit + won_rate), 1 - won_rate
    if low >= high or chance(high) < power:
        return None
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return high - won_rate


def _detectable_of_templates(
    won_rate: float, pairs: int, limit: float, alpha: float, power: float, templates: float
) -> float | None:
    """`detectable_drop` where templates are resampled.

    The bound is that of Tango's statistic on counts divided by the design effect, whose error is
    the one that it would have at the limit: so the critical value is as many of those away, and
    what makes up the power as many true ones.
    """
    freedom, most = templates - 1, 1 - 2 * won_rate  # what is won cannot be lost as well
    if freedom < 1 or limit >= most:
        return None
    true = np.linspace(limit, most, 1001)[1:-1]  # nothing may spread at the ends
    spread = true + 2 * won_rate - true**2
    squared = _squared_error(true, spread, pairs, templates)
    count: FloatArray = np.minimum(pairs, spread / squared)  # pairs over the design effect
    score = drop_score((true + won_rate) * count, won_rate * count, count, limit)
    critical = special.stdtrit(freedom, 1 - alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = critical * np.where(score > 0, (true - limit) / score, np.inf)
    made_up = special.ndtri(power) * np.sqrt(squared + reach**2 / (2 * freedom))
    seen = np.flatnonzero(true - limit >= reach * (1 - 1 / (4 * freedom)) + made_up)
    return float(true[seen[0]]) if seen.size else None


def _likely_counts(
    won_rate: float, pairs: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """All (lost, won) that `pairs` allow, but for numbers won that hardly ever occur."""
    least, most = 0, 0
    if won_rate:
        from scipy import stats

        least, most = stats.binom.interval(1 - 1e-12, pairs, won_rate)
    won = np.arange(int(least), int(most) + 1)
    lost = np.arange(pairs + 1)
    grid = np.stack(np.meshgrid(lost, won, indexing="ij")).reshape(2, -1).astype(np.float64)
    grid = grid[:, grid.sum(axis=0) <= pairs]
    return grid[0], grid[1]


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
    fail_confidence: float | None = None,
    clusters: IntArray | None = None,
) -> int | None:
    """`pairs_to_decide` for an accuracy drop: how many pairs would decide if they changed sides at
    the observed rates. Its bound shrinks with 1 / n, not 1 / sqrt(n), where no pair changed.

    `fail_confidence` is the one-sided level of the lower bound, where it is another than the upper
    bound's `confidence`. `clusters`, as of `accuracy_drop`: more pairs are more of the same
    templates, and the design effect grows with their number in each, 1 + (m - 1) rho (Kish 1965,
    Survey Sampling, section 5.4); None where that keeps any number of them from deciding."""
    lost, won, pairs = changed_sides(base_correct, tuned_correct)
    effect, freedom = 1.0, math.inf
    if clusters is not None and lost + won > 0:
        loss = np.asarray(base_correct, dtype=np.float64) - np.asarray(tuned_correct)
        effect, freedom = design_effect(loss, clusters)
    of_each = pairs / (freedom + 1)  # pairs of a template
    together = (effect - 1) / (of_each - 1) if effect > 1 else 0.0

    def decided(factor: float) -> bool:
        scale = factor / (1 + together * (of_each * factor - 1))
        scaled = lost * scale, won * scale, pairs * scale
        lower = confidence if fail_confidence is None else fail_confidence
        high = drop_bounds(*scaled, confidence, freedom=freedom)[1]
        return high <= limit or drop_bounds(*scaled, lower, freedom=freedom)[0] > limit

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
