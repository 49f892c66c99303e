"""How often each interval misses the true ratio, on made-up data."""

from __future__ import annotations

from functools import partial

import numpy as np

from examples.studies.statistics.intervals import INTERVALS, Rows, percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.scenarios import RATIO, SCENARIOS
from examples.studies.statistics.settings import ALPHA, Settings


def jobs(settings: Settings) -> list[Job]:
    """A record for each scenario, number of pairs and interval: how often, in per cent, the lower
    bound lies above the truth (`low`) and the upper one below it (`high`), each nominally 5 %; how
    often the two-sided interval, nominally of 95 %, holds it (`holds`); and the median width of
    the first relative to the truth (`width`)."""
    return [
        partial(_records, name, pairs, key, settings)
        for name in SCENARIOS
        for pairs in settings.pairs
        for key in INTERVALS
    ]


def _records(name: str, pairs: int, key: str, settings: Settings) -> list[Record]:
    scenario, (_, interval) = SCENARIOS[name], INTERVALS[key]
    low, high, holds, width = [], [], [], []
    for block in range(settings.data_sets // settings.block):
        rng = np.random.default_rng((block, pairs))
        damage, importance = scenario.draw(rng, settings.block, pairs)
        given = settings.resamples, block, scenario.clusters(pairs)
        least, most = interval(Rows(damage, importance, 1 - ALPHA, *given))
        low.append(least > RATIO)
        high.append(most < RATIO)
        width.append((most - least) / RATIO)
        least, most = interval(Rows(damage, importance, 1 - ALPHA / 2, *given))
        holds.append((least <= RATIO) & (most >= RATIO))
    return [
        {
            "scenario": name,
            "pairs": pairs,
            "interval": key,
            "low": percent(np.concatenate(low)),
            "high": percent(np.concatenate(high)),
            "holds": percent(np.concatenate(holds)),
            "width": round(float(np.median(np.concatenate(width))), 3),
        }
    ]
