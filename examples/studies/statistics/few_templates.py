"""Either bound's misses where pairs come from two to seven templates, half of the spread between
them; as clusters with Student's t, which is the gate's rule, and as if pairs were independent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from examples.studies.statistics.intervals import of_family, percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import ALPHA, Settings
from forgetguard.gate import studentised
from forgetguard.gate.resampling import FloatArray, IntArray

KINDS: Mapping[str, str] = {"normal": "normal", "skewed": "a few templates lose much"}
COUNTS = (2, 3, 4, 5, 7)
_PAIRS, _RATIO = 64, 0.2


def jobs(settings: Settings) -> list[Job]:
    """One for each kind of loss and number of templates."""
    cells = itertools.product(KINDS, COUNTS)
    return [partial(_records, *cell, settings) for cell in cells]


def _records(kind: str, count: int, settings: Settings) -> list[Record]:
    """How often, in per cent, the lower bound lies above the truth and the upper one below it."""
    rng, codes = np.random.default_rng(count), np.arange(_PAIRS) % count
    damage, importance = _templated(rng, kind, codes, settings.data_sets)
    found: Record = {"data": kind, "templates": count}
    for name, clusters in (("", codes), ("alone_", None)):
        low, high = of_family(
            studentised.ratios(
                damage,
                importance,
                confidence=1 - ALPHA,
                fail_alpha=0,
                resamples=settings.resamples,
                clusters=clusters,
            )
        )
        found |= {f"{name}low": percent(low > _RATIO), f"{name}high": percent(high < _RATIO)}
    return [found]


def _templated(
    rng: np.random.Generator, kind: str, codes: IntArray, draws: int
) -> tuple[FloatArray, FloatArray]:
    def noise() -> FloatArray:
        shared = rng.standard_normal((draws, int(codes.max()) + 1))[:, codes]
        found: FloatArray = math.sqrt(0.5) * (shared + rng.standard_normal((draws, len(codes))))
        return found

    importance = 3 + noise()
    if kind == "normal":
        return _RATIO * importance + 0.5 * noise(), importance
    return 3 * _RATIO * np.exp(0.8 * noise() - 0.32), importance
