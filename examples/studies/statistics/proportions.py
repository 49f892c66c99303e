"""The error rates of the accuracy's bounds: enumerated for independent pairs, simulated where
templates change sides together."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
from scipy import stats

from examples.studies.statistics.intervals import percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import ALPHA, DROP_LIMIT, LIMITS, Settings
from forgetguard.gate import accuracy
from forgetguard.gate.resampling import FloatArray, IntArray

DROPS = (0.01, 0.02, 0.05, 0.1, 0.2)
WON = (0.0, 0.005, 0.02, 0.1, 0.3)  # true shares of pairs that only the tuned model gets right
# Pairs, templates, and the intra-class correlation of losses in a template.
TEMPLATES = tuple(
    (pairs, templates, together)
    for pairs, templates in ((64, 8), (64, 16), (256, 16), (256, 32))
    for together in (0.1, 0.3)
)


def jobs(settings: Settings) -> list[Job]:
    """One for each number of pairs."""
    return [partial(_enumerated, pairs) for pairs in settings.pairs]


def _enumerated(pairs: int) -> list[Record]:
    """A record with the largest chances, in per cent, over true drops and
    shares won: that the lower bound lies above the true drop at 5 % (`low`) and at 0.33 %
    (`low_of_many`), and that the upper one lies below it at 5 % (`high`)."""
    rates = [_rates(pairs, drop, won) for drop, won in itertools.product(DROPS, WON)]
    low, of_many, high = (round(100 * max(column), 2) for column in zip(*rates, strict=True))
    return [{"pairs": pairs, "low": low, "low_of_many": of_many, "high": high}]


def _rates(pairs: int, drop: float, won: float) -> tuple[float, float, float]:
    counts = np.arange(pairs + 1)
    grid = np.stack(np.meshgrid(counts, counts, indexing="ij")).reshape(2, -1)
    grid = grid[:, grid.sum(axis=0) <= pairs]
    cells = np.stack([*grid, pairs - grid.sum(axis=0)], axis=1)
    chance = stats.multinomial.pmf(cells, pairs, [drop + won, won, 1 - drop - 2 * won])
    score = accuracy.drop_score(grid[0], grid[1], pairs, drop)
    one, many = stats.norm.isf(ALPHA), stats.norm.isf(ALPHA / LIMITS)
    # Where no pair changed sides the bound is the exact binomial one, above any of these drops
    # unless so many pairs are very unlikely to keep their sides.
    none = (grid.sum(axis=0) == 0) & (1 - ALPHA ** (1 / pairs) >= drop)
    return (
        float(chance[score > one].sum()),
        float(chance[score > many].sum()),
        float(chance[(score < -one) & ~none].sum()),
    )


def template_jobs(settings: Settings) -> list[Job]:
    """One for each number of pairs and templates and intra-class correlation."""
    return [partial(_by_template, *cell, settings.data_sets) for cell in TEMPLATES]


def _by_template(pairs: int, templates: int, together: float, tried: int) -> list[Record]:
    """A record at a true drop of `DROP_LIMIT`: how often, in per cent, the lower bound lies above
    it (`low`, and `low_of_many` at the level of one limit of fifteen) and the upper one below it
    (`high`), of the gate's bounds and, as `alone_...`, of those that take pairs for independent."""
    rng = np.random.default_rng((pairs, templates, round(100 * together)))
    codes = np.arange(pairs) % templates
    sets = [_missed(_losses(rng, codes, together), codes) for _ in range(tried)]
    shares = {name: percent(np.array([one[name] for one in sets])) for name in sets[0]}
    return [{"pairs": pairs, "templates": templates, "together": together, **shares}]


def _losses(rng: np.random.Generator, codes: IntArray, together: float) -> FloatArray:
    """Which pairs are lost, at a mean rate of `DROP_LIMIT`; the rate of a template is drawn from a
    beta distribution."""
    size = (1 - together) / together
    rates = rng.beta(DROP_LIMIT * size, (1 - DROP_LIMIT) * size, int(codes.max()) + 1)
    return (rng.random(len(codes)) < rates[codes]).astype(np.float64)


def _missed(lost: FloatArray, codes: IntArray) -> dict[str, bool]:
    effect, freedom = accuracy.design_effect(lost, codes) if lost.any() else (1.0, math.inf)
    result = {}
    for name, by, degrees in (("", effect, freedom), ("alone_", 1.0, math.inf)):
        pairs = len(lost) / by
        score = float(accuracy.drop_score(lost.sum() / by, 0.0, pairs, DROP_LIMIT))
        one, many = (float(stats.t.isf(level, degrees)) for level in (ALPHA, ALPHA / LIMITS))
        none = not lost.any() and 1 - ALPHA ** (1 / pairs) >= DROP_LIMIT
        result[f"{name}low"] = score > one
        result[f"{name}low_of_many"] = score > many
        result[f"{name}high"] = score < -one and not none
    return result
