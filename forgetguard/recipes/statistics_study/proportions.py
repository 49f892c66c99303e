"""The error rates of the accuracy's bounds, enumerated: no simulation. [light]"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy import stats

from forgetguard.gate import accuracy
from forgetguard.recipes.statistics_study.settings import ALPHA, LIMITS, Settings

DROPS = (0.02, 0.05, 0.1)
WON = (0.0, 0.02, 0.1)  # true shares of pairs that only the tuned model gets right


def measure(settings: Settings) -> list[dict[str, Any]]:
    """A record for each number of pairs, with the largest chances, in per cent, over true drops and
    shares won: that the lower bound lies above the true drop at 5 % (`low`) and at 0.33 %
    (`low_of_many`), and that the upper one lies below it at 5 % (`high`)."""
    found = []
    for pairs in settings.pairs:
        rates = [_rates(pairs, drop, won) for drop, won in itertools.product(DROPS, WON)]
        low, of_many, high = (round(100 * max(column), 2) for column in zip(*rates, strict=True))
        found.append({"pairs": pairs, "low": low, "low_of_many": of_many, "high": high})
    return found


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
