"""Lower bounds that hold for several heads at once, where a head that is surely within costs the
others nothing.

A limit on every head fails where any lower bound is beyond it, so the bounds must hold together:
one critical value for the largest T over the heads (max-T). It grows with the number of heads, as
if each of them might stand at the limit; in a circuit with one damaged head the others do not. So
a tenth of the level is spent on upper bounds that hold for all heads at once, and at a limit L a
head enters the maximum no nearer to L than its upper bound is: its T is moved down by (upper
bound - L) / error where that is negative. The remaining nine tenths are the level of the critical
value. Where all upper bounds hold, no head's T is beyond what was allowed for, so that a family of
which every true value is within one common limit is failed with the whole level at most (Romano,
Shaikh & Wolf 2014, Econometrica 82:1979, for tests of moment inequalities). A head whose damage is
of rounding size, or far from the limit, then asks nothing of the others; where all stand at the
limit, the price is the tenth.

A bound is the first L, from below, that is not rejected, so it knows of no limit, and a limit that
fails would fail if it were lower. It is found by steps: from the bound L that allows for all heads
to the one that allows for what is left at L, and on until it stays.

Source of the critical values: draws of all heads together, or, of few templates, Student's t with
the tails of all heads added (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

if TYPE_CHECKING:
    from forgetguard.gate.linear_form import LinearForm
    from forgetguard.gate.resampling import FloatArray

SPENT = 0.1  # of the level, on upper bounds
_STEPS = 20  # at most: each is a valid bound
_SETTLED = 1e-9  # of a step, relative

Critical = Callable[["FloatArray", float], float]  # of the largest T, from (shifts, level)


def lower_bounds(
    form: LinearForm,
    known: npt.NDArray[np.bool_],
    level: float,
    highest: Critical,
    lowest: float,
    bound: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """The lower bounds of all heads, [heads].

    Args:
        form: the heads' ratios.
        known: [heads], whether a head's T is that of the ratio itself.
        level: one-sided error of all bounds together.
        highest: the critical value, at a level, of the largest T where each head's is moved by
            [heads].
        lowest: what the smallest T of any head falls short of, below 0, with `SPENT` of `level`.
        bound: the heads' lower bounds at critical values [heads] (of either sign of a bound: at
            negative ones the upper bounds).
    """
    heads = len(form.values)
    rest = level * (1 - SPENT) if heads > 1 else level
    critical = np.full(heads, highest(np.zeros(heads), rest))
    low = bound(critical)
    if heads == 1 or not math.isfinite(lowest):
        return low
    most = bound(np.full(heads, lowest))
    # Below every upper bound nothing is left out.
    moving = np.isfinite(low) & ~form.exact & (low > most.min())
    for _ in range(_STEPS):
        before = low.copy()
        for head in np.flatnonzero(moving):
            limit = float(low[head])
            # By how much each head's T there lies below 0 even where its ratio is `most`, [heads].
            error = np.where(known, form.errors(), form.errors_at(np.full(heads, limit)))
            with np.errstate(divide="ignore", invalid="ignore"):
                shifts = np.where(most < limit, (most - limit) / error, 0.0)
            critical[head] = highest(shifts, rest)
        low = np.maximum(before, bound(critical))
        moving[moving] = low[moving] - before[moving] > _SETTLED * (1 + np.abs(before[moving]))
        if not moving.any():
            break
    return low


def student_critical(freedom: float) -> Critical:
    """The critical value where each T has Student's t, whatever goes together: the tails of all
    heads add up to the level."""

    def critical(shifts: FloatArray, level: float) -> float:
        if level <= 0:
            return math.inf
        least, most = (
            -float(special.stdtrit(freedom, level / heads)) for heads in (1, len(shifts))
        )
        for _ in range(60):
            middle = (least + most) / 2
            tails = float(special.stdtr(freedom, shifts - middle).sum())
            least, most = (middle, most) if tails > level else (least, middle)
        return most

    return critical
