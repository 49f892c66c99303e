"""From what nulls read to limits, with the rate at which a gate would hold a null for damage.

A gate lets a checkpoint through only when a limit passes: a fail and an abstention both hold it. So
for each draw of a null there is a smallest limit that passes it, the upper bound of its interval on
the gate's own pairs (`passes`), and a smaller one from which on it does not fail (`not_fails`).

Of D draws that are exchangeable with the next one, the k-th smallest, k = ceil((D + 1)(1 - a)), is
a limit that holds the next draw with probability a at most, whatever the distribution: the order
statistic that split conformal prediction rests on (Vovk, Gammerman and Shafer 2005; Wilks 1941,
Ann. Math. Stat. 12:91). With D < 1 / a - 1 there is no such k: then the largest is taken, and what
can be said is 1 / (D + 1). The interval's behaviour is in it, for each draw is judged by the gate
itself; the pairs are those of the circuit file, so nothing is said of others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forgetguard.gate import rule
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.estimate import Case
from forgetguard.gate.suggestion import rounded_up
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Samples

ALARM = 0.05
STEP = 0.01  # limits are suggested in hundredths, and never 0


@dataclass(frozen=True, slots=True)
class LimitReading:
    """What one limit comes to on one reading.

    value: the estimate (of `subject`, for a limit on every head the one nearest to the limit or
        beyond it).
    passes: the smallest limit that would pass, inf where it abstains at every limit.
    not_fails: the smallest multiple of `STEP` at which it does not fail.
    outcome: at the limit as it is declared.
    why: why it would abstain at every limit, where it would.
    """

    value: float
    low: float
    high: float
    subject: str
    passes: float
    not_fails: float
    outcome: Outcome
    why: Code | None = None


def read_limit(
    spec: GateSpec, limit: Limit, samples: Samples, *, seed: int = 0, family: int = 1
) -> LimitReading:
    """Judge one reading as the gate would.

    Args:
        family: limits of the run, which share its false-alarm rate.

    Raises:
        MeasurementError: as `rule.judge`.
    """
    case = Case.of(spec, samples, seed=seed, family=family)
    found, declared = rule.estimate(case, limit), rule.decide(case, limit)
    reason = found.unmeasurable
    if reason is None and declared.code is Code.NO_HEAD:
        reason = declared
    if reason is not None:
        nothing = (math.nan,) * 3
        return LimitReading(*nothing, "", math.inf, 0.0, declared.outcome, reason.code)
    nearest = max(found.subjects, key=lambda one: one.held.estimate.high)
    shown = nearest.held.estimate
    why = None
    if found.saturated is not None:
        why = Code.SATURATED
    elif not math.isfinite(shown.high):
        why = Code.UNDECIDED
    bounds, passes = (shown.value, shown.low, shown.high), shown.high if why is None else math.inf
    not_fails = _not_fails(max(one.held.corrected_low for one in found.subjects))
    return LimitReading(*bounds, nearest.subject, passes, not_fails, declared.outcome, why)


def _not_fails(low: float) -> float:
    """The smallest multiple of `STEP` from 0 on that a lower bound is not beyond."""
    if not math.isfinite(low):
        return math.inf if low > 0 else 0.0
    steps = max(0, math.ceil(low / STEP))
    while steps > 0 and low <= (steps - 1) * STEP:  # rounding of the division
        steps -= 1
    while low > steps * STEP:
        steps += 1
    return steps * STEP


@dataclass(frozen=True, slots=True)
class Stated:
    """A limit and the rate at which it holds the next draw: at most `rate`, and `as_asked` where
    that is no more than was asked for. `draws`: how many it rests on."""

    limit: float
    rate: float
    as_asked: bool
    draws: int


def stated(smallest: Sequence[float], alarm: float = ALARM) -> Stated:
    """The limit that follows from each draw's smallest one, rounded up to `STEP`.

    Args:
        smallest: one a draw; at least one.
        alarm: the rate asked for, above 0 and below 1.
    """
    ordered, draws = sorted(smallest), len(smallest)
    # 1e-9: (D + 1)(1 - a) that is whole but for its last bits stays.
    place = math.ceil((draws + 1) * (1 - alarm) - 1e-9)
    if place <= draws:
        return Stated(at_least_one_step(ordered[place - 1]), alarm, True, draws)
    return Stated(at_least_one_step(ordered[-1]), 1 / (draws + 1), False, draws)


def at_least_one_step(value: float) -> float:
    """Rounded up to a multiple of `STEP`, at least one of them; inf stays."""
    return max(STEP, rounded_up(value)) if math.isfinite(value) else math.inf


def fewest_draws(alarm: float) -> int:
    """How many draws it takes to state a rate."""
    return math.ceil(1 / alarm - 1e-9) - 1
