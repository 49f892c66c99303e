"""A limit of 0.10 with and without a guard: wrong passes where the truth stands at the limit, right
ones where it is below, and false fails."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial

import numpy as np

from examples.studies.statistics.intervals import of_family, percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import ALPHA, CIRCUIT_LIMIT, Settings
from forgetguard.gate import guard, studentised
from forgetguard.gate.resampling import FloatArray

AT_LIMIT: Mapping[str, str] = {
    "tenth": "10 % of the pairs lose all, the others nothing",
    "fifth": "20 % of the pairs lose half",
    "twentieth": "5 % of the pairs lose twice their importance",
    "skewed": "right skew: log-normal, sigma 1",
    "improving": "left skew: a few pairs improve much",
    "normal": "normal",
}
BELOW: Mapping[str, str] = {
    "harmless": "harmless: truth 0",
    "half": "every pair about 0.05: truth 0.05",
    "near": "every pair about 0.07: truth 0.07",
}
SPARSE = ("tenth", "fifth", "twentieth")  # the last loses more than one importance
LOSSES = (1, 2)


def sizes(settings: Settings) -> tuple[int, ...]:
    """The numbers of pairs: twice the most, too."""
    return (*settings.pairs, 2 * settings.pairs[-1])


def jobs(settings: Settings) -> list[Job]:
    """One for each kind of data and number of pairs."""
    cells = itertools.product((*AT_LIMIT, *BELOW), sizes(settings))
    return [partial(_records, *cell, settings) for cell in cells]


def _records(kind: str, pairs: int, settings: Settings) -> list[Record]:
    """How often, in per cent, the limit passes without a guard and with one of each of `LOSSES`,
    and how often it fails at 5 %."""
    damage, importance = _drawn(np.random.default_rng(pairs), kind, (settings.guards, pairs))
    bounds = studentised.ratios(
        damage, importance, confidence=1 - ALPHA, fail_alpha=0, resamples=settings.resamples
    )
    low, high = of_family(bounds)
    guarded = [
        np.maximum(high, guard.upper(damage, importance, loss=loss, alpha=ALPHA)) for loss in LOSSES
    ]
    passes = [percent(most <= CIRCUIT_LIMIT) for most in (high, *guarded)]
    return [{"data": kind, "pairs": pairs, "passes": passes, "fails": percent(low > CIRCUIT_LIMIT)}]


def _drawn(
    rng: np.random.Generator, kind: str, shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    importance = 3 * np.exp(0.4 * rng.standard_normal(shape) - 0.08)
    noise, unit = 0.03 * rng.standard_normal(shape), rng.random(shape)
    spread = rng.standard_normal(shape)
    about = np.exp(0.6 * spread - 0.18) * importance
    found: Mapping[str, FloatArray] = {
        "tenth": np.where(unit < 0.1, importance, 0) + noise,
        "fifth": np.where(unit < 0.2, 0.5 * importance, 0) + noise,
        "twentieth": np.where(unit < 0.05, 2 * importance, 0) + noise,
        "skewed": 3 * CIRCUIT_LIMIT * np.exp(spread - 0.5),
        "improving": CIRCUIT_LIMIT * importance + 0.4 * (1 - np.exp(0.8 * spread - 0.32)),
        "normal": CIRCUIT_LIMIT * importance + 0.5 * spread,
        "harmless": 2 * noise,
        "half": 0.05 * about + 5 * noise,
        "near": 0.07 * about + 5 * noise,
    }
    return found[kind], importance
