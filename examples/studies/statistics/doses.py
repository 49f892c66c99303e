"""How often a limit passes and fails when the true value is known: power against dose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from examples.studies.statistics.families import together
from examples.studies.statistics.intervals import of_family, percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import (
    ALPHA,
    CIRCUIT_LIMIT,
    HEAD_LIMIT,
    HEADS,
    LIMITS,
    Settings,
)
from forgetguard.gate import power, studentised
from forgetguard.gate.resampling import FloatArray

CIRCUIT_DOSES = (0.0, 0.03, 0.05, 0.07, 0.085, 0.1, 0.115, 0.13, 0.15, 0.175, 0.2, 0.25, 0.3)
HEAD_DOSES = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)
_BLOCK = 50


def passable(
    value: float, high: float, limit: float, alpha: float, wanted: float = power.POWER
) -> float | None:
    """About the largest true value that the limit PASSES with the probability `wanted`: the
    counterpart of `power.detectable`, from the upper bound. Where it is below what the checkpoint
    can read (0, if it does no harm), more pairs are needed for any pass to be likely."""
    if not math.isfinite(high - value) or not 0 < alpha < 0.5:
        return None
    reach = (high - value) * (1 + special.ndtri(wanted) / -special.ndtri(alpha))
    return float(limit - reach)


def dosed(
    rng: np.random.Generator, shape: tuple[int, ...], dose: float
) -> tuple[FloatArray, FloatArray]:
    """(damage, importance) of a true ratio `dose`: every pair loses about that share, some more and
    some less (log-normal, sigma 0.6), beside noise of 5 % of the importance."""
    importance = 3 * np.exp(0.4 * rng.standard_normal(shape) - 0.08)
    share = dose * np.exp(0.6 * rng.standard_normal(shape) - 0.18)
    return share * importance + 0.15 * rng.standard_normal(shape), importance


def circuit_jobs(settings: Settings) -> list[Job]:
    """One for each number of pairs and dose."""
    cells = itertools.product(settings.pairs, CIRCUIT_DOSES)
    return [partial(_circuits, *cell, settings.doses) for cell in cells]


def _circuits(pairs: int, dose: float, tried: int) -> list[Record]:
    """A circuit's limit of 0.10: a record for each number of limits in the run, with how often it
    passes and fails, in per cent, and the medians of what `detectable` and `passable` say."""
    found = []
    rng = np.random.default_rng((pairs, round(1000 * dose)))
    damage, importance = dosed(rng, (tried, pairs), dose)
    value = damage.mean(axis=1) / importance.mean(axis=1)
    given: dict[str, Any] = {"resamples": 2999, "seed": pairs, "fail_alpha": 0}
    high = of_family(studentised.ratios(damage, importance, **given))[1]
    for limits in (1, LIMITS):
        alpha = ALPHA / limits
        bounds = studentised.ratios(damage, importance, confidence=1 - alpha, **given)
        low = of_family(bounds)[0]
        model: dict[str, Any] = {"freedom": pairs - 1, "growth": power.growth(pairs)}
        sparse: dict[str, Any] = {"pairs": pairs, "loss": 1.0, "freedom": pairs - 1}
        rows = zip(value, value - low, bounds.errors, power.unevenness(importance), strict=True)
        said = []
        for estimate, reach, error, one in rows:
            most = power.detectable_sparse(reach, error, CIRCUIT_LIMIT, unevenness=one, **sparse)
            said.append(power.detectable(estimate, reach, error, CIRCUIT_LIMIT, most=most, **model))
        room = [passable(*row, CIRCUIT_LIMIT, ALPHA) for row in zip(value, high, strict=True)]
        found.append(
            {
                "pairs": pairs,
                "limits": limits,
                "dose": dose,
                "passes": percent(high <= CIRCUIT_LIMIT),
                "fails": percent(low > CIRCUIT_LIMIT),
                "detectable": _median(said, np.inf),
                "passable": _median(room, -np.inf),
            }
        )
    return found


def _median(values: Sequence[float | None], missing: float) -> float | None:
    """The median, where what is not known counts as `missing`, which is infinite; None for that."""
    found = float(np.median([missing if one is None else one for one in values]))
    return round(found, 4) if np.isfinite(found) else None


def head_jobs(settings: Settings) -> list[Job]:
    """One for each number of pairs and dose."""
    cells = itertools.product(settings.pairs, HEAD_DOSES)
    return [partial(_heads, *cell, settings) for cell in cells]


def _heads(pairs: int, dose: float, settings: Settings) -> list[Record]:
    """The limit of 0.25 on every head of eight, of which one is damaged, in a run of fifteen
    limits. It passes when all heads do, and fails when any does."""
    blocks = [
        _judge_heads(pairs, dose, block, min(_BLOCK, settings.head_doses), settings.resamples)
        for block in range(max(1, settings.head_doses // _BLOCK))
    ]
    passes, fails = (np.concatenate(part) for part in zip(*blocks, strict=True))
    rates = {"passes": percent(passes), "fails": percent(fails)}
    return [{"pairs": pairs, "limits": LIMITS, "dose": dose, **rates}]


def _judge_heads(
    pairs: int, dose: float, block: int, runs: int, resamples: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Whether the limit on heads passes, and fails, [runs]."""
    rng = np.random.default_rng((pairs, round(1000 * dose), block))
    damage, importance = dosed(rng, (runs, HEADS, pairs), 0.0)
    damage[:, 0], importance[:, 0] = dosed(rng, (runs, pairs), dose)
    rows = damage.reshape(-1, pairs), importance.reshape(-1, pairs)
    found = studentised.ratios(*rows, fail_alpha=0, resamples=resamples, seed=block)
    high = of_family(found)[1].reshape(runs, HEADS)
    low = together(damage, importance, ALPHA / LIMITS, resamples, block)
    return high.max(axis=1) <= HEAD_LIMIT, low.max(axis=1) > HEAD_LIMIT


def dose_of(
    records: Sequence[Mapping[str, Any]], what: str, power_percent: float = 80
) -> float | None:
    """The dose at which `what` ("fails" or "passes") reaches the power, between the doses that
    were tried; None beyond them. `records`: of one number of pairs and limits."""
    rows = sorted((one["dose"], one[what]) for one in records)
    if what == "passes":
        rows = rows[::-1]
    for (before, less), (dose, share) in itertools.pairwise(rows):
        if less < power_percent <= share:
            part = (power_percent - less) / (share - less)
            return float(before + part * (dose - before))
    return None
