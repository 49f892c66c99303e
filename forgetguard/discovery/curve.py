"""Faithfulness over the size of a circuit, and the smallest circuit that is faithful enough.

A size suffices where the lower confidence bound of faithfulness is at least the mark, at it and at
every larger size that was read: a curve may reach the mark and fall again where members that work
against the capability come in. Read from all members down this is a sequence of tests in a fixed
order, so the level of each is that of the whole (Maurer et al., 1995).

CPR is the area under the curve over the share of members kept, CMD that between the curve and 1,
both by the trapezoid rule. They are MIB's, which begins at 0.1 % of the members; here they begin at
none, where faithfulness is 0 by definition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second to import

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.discovery.ranking import Progress, of_stage
from forgetguard.measures.faithfulness import faithfulness
from forgetguard.measures.interventions import FloatArray, Passes, Saved

ALL_SIZES_UP_TO = 64  # members; beyond it the curve is drawn at sizes of a geometric grid
CONFIDENCE = 0.95  # one-sided, of each lower bound
_GRID = 16
_PARTS = 8  # sizes read at once while the search closes in
# Where the circuit need not be the smallest to the last member: each size that is read costs a
# patched run of every pair through nearly the whole model.
_COARSE_GRID = 6
_SLACK = 0.2  # of the size that suffices
# Fewer members than each of these are read only where all sizes above suffice: what is smaller than
# one that does not is no circuit.
_COARSE_FROM = (30, 10)


@dataclass(frozen=True, slots=True)
class Curve:
    """f of the first k members of a ranking, for k in `sizes` (ascending, without 0), out of
    `members` in all; the rest ablated by `ablation`. `low` are its lower bounds, `whole` is
    F(all) - F(none) in nats."""

    sizes: tuple[int, ...]
    faithfulness: tuple[float, ...]
    low: tuple[float, ...]
    members: int
    ablation: str
    whole: float
    pairs: int

    def first(self, faithful: float) -> int | None:
        """The smallest size read whose faithfulness is at least `faithful`."""
        reached = zip(self.sizes, self.faithfulness, strict=True)
        return next((size for size, value in reached if value >= faithful), None)

    def smallest(self, faithful: float, *, at_least: int = 1) -> int | None:
        """The smallest size read, of `at_least` members, from which on the lower bound of
        faithfulness is at least `faithful` at every size read; None where there is none."""
        lows = dict(zip(self.sizes, self.low, strict=True))
        return _smallest(lows, faithful, at_least)

    def at(self, size: int) -> float:
        """f at one of `sizes`."""
        return self.faithfulness[self.sizes.index(size)]

    def low_at(self, size: int) -> float:
        """The lower bound of f at one of `sizes`."""
        return self.low[self.sizes.index(size)]

    @property
    def cpr(self) -> float:
        """Area under the curve; 1 for a method whose first member does everything."""
        sizes, values = self._on_grid()
        return float(np.trapezoid(values, sizes))

    @property
    def cmd(self) -> float:
        """Area between the curve and 1; 0 is best."""
        sizes, values = self._on_grid()
        return float(np.trapezoid(np.abs(1.0 - values), sizes))

    def _on_grid(self) -> tuple[FloatArray, FloatArray]:
        """Shares of the members and f there, at the grid's sizes alone: those that the search for a
        circuit added would make areas depend on what was searched for."""
        at = [size for size in grid(self.members) if size in self.sizes]
        values = np.array([0.0, *(self.at(size) for size in at)])
        return np.array([0, *at]) / self.members, values


def faithfulness_curve(
    anatomy: Anatomy,
    capability: EncodedCapability,
    order: Sequence[Member],
    *,
    faithful: float | None = None,
    at_least: Callable[[float], int] | None = None,
    sizes: Sequence[int] | None = None,
    kind: str = "counterfactual",
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
    coarse: bool = False,
) -> Curve:
    """The curve of the ranking `order`.

    Up to 64 members every size is read; beyond, a geometric grid, and where `faithful` is given the
    sizes around the smallest that suffices, until the one before it is known not to.

    Args:
        at_least: from F(all) - F(none) in nats, the fewest members that a circuit may have.
        sizes: read these alone.
        passes: of other curves of the same members on these pairs.
        coarse: read fewer sizes; the circuit may be a fifth larger than the smallest that suffices.

    Raises:
        MeasurementError: ablating every member loses nothing.
    """
    n = len(order)
    known: dict[int, float] = {}
    lows: dict[int, float] = {}
    whole = 0.0
    nothing: FloatArray | None = None  # read once
    passes = Passes(order, nested=True) if passes is None else passes

    def read(sizes: Sequence[int]) -> None:
        nonlocal whole, nothing
        found = faithfulness(
            anatomy,
            capability,
            [order[:size] for size in sizes],
            order,
            kind=kind,
            progress=of_stage(progress, "drawing the curve"),
            saved=saved,
            passes=passes,
            nothing=nothing,
        )
        nothing = found.nothing
        known.update(zip(sizes, found.values.tolist(), strict=True))
        gained = found.clean.readout - found.nothing
        for size, kept in zip(sizes, found.circuits, strict=True):
            lows[size] = lower_bound(kept - found.nothing, gained)
        whole = found.whole

    first = grid(n, _COARSE_GRID if coarse else _GRID) if sizes is None else list(sizes)
    cuts = faithful is not None and sizes is None
    steps = [step for step in _COARSE_FROM if coarse and cuts and step < n]
    read([size for size in first if size >= max(steps, default=0)])
    if faithful is not None and sizes is None:
        fewest = 1 if at_least is None else at_least(whole)
        for above, step in itertools.pairwise([*steps, 0]):
            between = [size for size in first if step <= size < above]
            if between and _smallest(lows, faithful, fewest) == min(lows):
                read(between)
        while between := _bracket(lows, faithful, fewest, coarse=coarse):
            read(between)
    read_at = tuple(sorted(known))
    values, bounds = (tuple(of[size] for size in read_at) for of in (known, lows))
    return Curve(read_at, values, bounds, n, kind, whole, capability.n_pairs)


def lower_bound(kept: FloatArray, whole: FloatArray) -> float:
    """The lower confidence bound of mean(kept) / mean(whole), both [pair] and paired: Fieller's,
    the smallest ratio r that a t test of kept - r whole on the pairs does not reject. -inf where
    the whole effect itself cannot be told from 0."""
    n = len(whole)
    if np.array_equal(kept, whole):
        return 1.0
    if n < 2:
        return -math.inf
    cut = float(stdtrit(n - 1, CONFIDENCE)) ** 2 / n
    (var_kept, both), (_, var_whole) = np.cov(kept, whole)
    a = whole.mean() ** 2 - cut * var_whole
    if not a > 0 or whole.mean() < 0:
        return -math.inf
    b = kept.mean() * whole.mean() - cut * both
    c = kept.mean() ** 2 - cut * var_kept
    return float((b - math.sqrt(max(0.0, b * b - a * c))) / a)


def grid(n: int, points: int = _GRID) -> list[int]:
    """The sizes that are read first, of `n` members: `points` of them beyond 64 members."""
    if n <= ALL_SIZES_UP_TO:
        return list(range(1, n + 1))
    return sorted({round(math.exp(math.log(n) * i / (points - 1))) for i in range(points)})


def _smallest(lows: dict[int, float], faithful: float, at_least: int) -> int | None:
    found = None
    for size in sorted(lows, reverse=True):
        if size < at_least or not lows[size] >= faithful:  # nor where it is no number
            break
        found = size
    return found


def _bracket(
    lows: dict[int, float], faithful: float, at_least: int, *, coarse: bool = False
) -> list[int]:
    """Sizes to read next, between the smallest that suffices and the one before; none where they
    are neighbours (`coarse`: or nearly), or no smaller one may be a circuit."""
    first = _smallest(lows, faithful, at_least)
    if first is None:
        return []
    before = max([size for size in lows if size < first] + [at_least - 1])
    inside = range(before + 1, first)
    if coarse:
        middle = (len(inside) - 1) // 2
        return [inside[middle]] if len(inside) >= _SLACK * first else []
    return list(inside[:: max(1, math.ceil(len(inside) / _PARTS))])
