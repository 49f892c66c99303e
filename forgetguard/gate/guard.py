"""An upper bound that holds where a few pairs carry all of the loss: one imagined pair is added,
and it loses as much as any pair can.

An interval knows the spread of the pairs that it has seen. Where one pair in ten carries all of the
damage, 16 pairs hold none of it with 19 %, and then nothing in them says so. The bound here takes
the pairs together with one more that loses `loss` times the mean importance (or as much as the
pair that lost most), gives all of them random weights (Dirichlet, all parameters 1), and is the
1 - alpha quantile of the weighted ratio (Gaffke 2005, Three test statistics for a nonparametric
one-sided hypothesis on the mean of a nonnegative variable, Math. Methods Stat. 14:451; Learned-
Miller & Thomas 2019, A new confidence interval for the mean of a bounded random variable,
arXiv:1905.06208: they conjecture that it holds for every distribution that is bounded so; it is not
proven, and theirs is a mean, ours a ratio of means). What it assumes of the distribution is only
that no pair loses more than that. Where nothing was lost it is `loss` times 1 - alpha^(1/n), the
rule of three: the imagined pair's weight is Beta(1, n).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # gate files are checked without numpy
    from forgetguard.measures.samples import FloatArray

_CHUNK = 2_000_000  # weights held at a time


def upper(
    numerators: FloatArray, denominators: FloatArray, *, loss: float, alpha: float, seed: int = 0
) -> FloatArray:
    """The guarded upper bound of mean(numerators) / mean(denominators) of each row, [row].

    Args:
        numerators, denominators: [row, n]; the denominators' means are not 0.
        loss: what the imagined pair loses, in mean denominators.
        alpha: one-sided.
        seed: of the weights. Another order of the pairs is another draw.
    """
    import numpy as np

    from forgetguard.gate.resampling import RESAMPLES, enough_resamples

    scale = denominators.mean(axis=1, keepdims=True)
    damage, importance = numerators * np.sign(scale), denominators * np.sign(scale)
    scale = np.abs(scale)
    imagined = np.maximum(loss * scale, damage.max(axis=1, keepdims=True))
    damage, importance = np.hstack([damage, imagined]), np.hstack([importance, scale])
    units = damage.shape[1]
    wanted = enough_resamples(RESAMPLES, alpha)
    step = max(1, _CHUNK // units)
    draws = np.empty((len(damage), wanted))
    for number, start in enumerate(range(0, wanted, step)):
        count = min(step, wanted - start)
        weights = np.random.default_rng((seed, number)).standard_exponential((units, count))
        below = importance @ weights
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(below > 0, damage @ weights / below, math.inf)
        draws[:, start : start + count] = found
    beyond = max(1, math.floor((wanted + 1) * alpha + 1e-9))
    result: FloatArray = np.partition(draws, wanted - beyond, axis=1)[:, wanted - beyond]
    return result


def fewest_pairs(maximum: float, loss: float, alpha: float) -> int:
    """The number of pairs from which a limit with a guard can be passed: by a model that loses
    nothing on any of them."""
    if maximum >= loss:
        return 1
    if maximum <= 0:
        return 0
    return math.ceil(math.log(alpha) / math.log1p(-maximum / loss) - 1e-9)
