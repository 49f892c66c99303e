"""Faithfulness over the size of a circuit, and the smallest circuit that is faithful enough.

CPR is the area under the curve over the share of members kept, CMD that between the curve and 1,
both by the trapezoid rule. They are MIB's, which begins at 0.1 % of the members; here they begin at
none, where faithfulness is 0 by definition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.discovery.ranking import Progress
from forgetguard.measures.behaviour import Behaviour
from forgetguard.measures.faithfulness import faithfulness
from forgetguard.measures.interventions import FloatArray, Saved

ALL_SIZES_UP_TO = 64  # members; beyond it the curve is drawn at sizes of a geometric grid
_GRID = 24
_PARTS = 8  # sizes read at once while the search closes in


@dataclass(frozen=True, slots=True)
class Curve:
    """f of the first k members of a ranking, for k in `sizes` (ascending, without 0), out of
    `members` in all; the rest ablated by `ablation`. `whole` is F(all) - F(none) in nats."""

    sizes: tuple[int, ...]
    faithfulness: tuple[float, ...]
    members: int
    ablation: str
    whole: float
    pairs: int

    def smallest(self, faithful: float) -> int | None:
        """The smallest size read whose faithfulness is at least `faithful`."""
        reached = zip(self.sizes, self.faithfulness, strict=True)
        return next((size for size, value in reached if value >= faithful), None)

    def at(self, size: int) -> float:
        """f at one of `sizes`."""
        return self.faithfulness[self.sizes.index(size)]

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
        at = [size for size in _grid(self.members) if size in self.sizes]
        values = np.array([0.0, *(self.at(size) for size in at)])
        return np.array([0, *at]) / self.members, values


def faithfulness_curve(
    anatomy: Anatomy,
    capability: EncodedCapability,
    order: Sequence[Member],
    *,
    faithful: float | None = None,
    kind: str = "counterfactual",
    progress: Progress | None = None,
    saved: Saved | None = None,
) -> tuple[Curve, Behaviour]:
    """The curve of the ranking `order`, and what the model does on the pairs.

    Up to 64 members every size is read; beyond, a geometric grid, and where `faithful` is given the
    sizes around the first that reaches it, until the one before it is known not to.

    Raises:
        MeasurementError: ablating every member loses nothing.
    """
    n = len(order)
    known: dict[int, float] = {}
    whole, clean = 0.0, None

    def read(sizes: Sequence[int]) -> None:
        nonlocal whole, clean
        found = faithfulness(
            anatomy,
            capability,
            [order[:size] for size in sizes],
            order,
            kind=kind,
            progress=None
            if progress is None
            else lambda done, total: progress("drawing the curve", done, total),
            saved=saved,
        )
        known.update(zip(sizes, found.values.tolist(), strict=True))
        whole, clean = found.whole, found.clean

    read(_grid(n))
    while faithful is not None and (between := _bracket(known, faithful)):
        read(between)
    assert clean is not None
    sizes = tuple(sorted(known))
    values = tuple(known[size] for size in sizes)
    return Curve(sizes, values, n, kind, whole, capability.n_pairs), clean


def _grid(n: int) -> list[int]:
    if n <= ALL_SIZES_UP_TO:
        return list(range(1, n + 1))
    return sorted({round(math.exp(math.log(n) * i / (_GRID - 1))) for i in range(_GRID)})


def _bracket(known: dict[int, float], faithful: float) -> list[int]:
    """Sizes to read next, between the first known size that is faithful enough and the one before;
    none where they are neighbours."""
    sizes = sorted(known)
    first = next((size for size in sizes if known[size] >= faithful), None)
    if first is None:
        return []
    before = max((size for size in sizes if size < first), default=0)
    inside = range(before + 1, first)
    step = max(1, math.ceil(len(inside) / _PARTS))
    return list(inside[::step])
