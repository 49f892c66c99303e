"""Damage of real models, pair by pair, and subsamples of it: that of the tiny family, and of any
model that `examples.studies.statistics.collect` has read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from examples.studies.statistics import tiny_family
from examples.studies.statistics.settings import FLOOR
from forgetguard.gate.resampling import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Real:
    """damage, importance: [1 + heads, n], the circuit first, or [1, n]. templates: [n]."""

    name: str
    checkpoint: str
    damage: FloatArray
    importance: FloatArray
    templates: IntArray

    @property
    def value(self) -> float:
        """The ratio of the first row on all pairs."""
        return float(self.damage[0].mean() / self.importance[0].mean())

    @property
    def worth(self) -> FloatArray:
        """The heads' importances as shares of the circuit's, [heads]."""
        found: FloatArray = np.abs(self.importance[1:].mean(axis=1))
        return found / abs(float(self.importance[0].mean()))

    def held(self) -> FloatArray:
        """What each head is held by, [heads, n]: its own importance, or the floor's share."""
        share = FLOOR * self.importance[:1] * np.sign(self.importance[0].mean())
        found: FloatArray = np.where((self.worth >= FLOOR)[:, None], self.importance[1:], share)
        return found


@cache
def read(tiny: Path, others: tuple[Path, ...]) -> tuple[Real, ...]:
    """All that there is, the tiny family's first."""
    found = [
        Real(one.circuit, one.checkpoint, one.damage, one.importance, one.templates)
        for one in tiny_family.read(tiny)
    ]
    return (*found, *(one for path in others for one in _of_model(path)))


def _of_model(path: Path) -> list[Real]:
    """Circuits, and whole readouts, of every checkpoint of a file that `collect` wrote."""
    found = []
    with np.load(path) as kept:
        codes = np.unique(kept["templates"], return_inverse=True)[1].astype(np.intp)
        name = f"{kept['task']} of {kept['model']}"
        for key in kept:
            kind, _, checkpoint = key.partition("_")
            if kind == "damage":
                found.append(Real(name, checkpoint, kept[key], kept["importance"], codes))
            elif kind == "readout":
                lost = (kept["base"] - kept[key])[None]
                found.append(Real(f"{name}, readout", checkpoint, lost, kept["base"][None], codes))
    return found


def subsamples(
    templates: IntArray, pairs: int, draws: int, seed: int, *, whole: bool
) -> tuple[IntArray, IntArray | None]:
    """[draws, pairs] places and, where whole templates are drawn, with replacement and pairs within
    each, their clusters: what an interval over templates speaks of."""
    rng = np.random.default_rng((pairs, seed))
    if not whole:
        return rng.integers(0, len(templates), (draws, pairs)), None
    groups = [np.flatnonzero(templates == one) for one in np.unique(templates)]
    count = min(len(groups), pairs // 2)
    while pairs % count:
        count -= 1
    each = pairs // count
    chosen = [
        np.concatenate(
            [rng.choice(groups[one], each) for one in rng.integers(0, len(groups), count)]
        )
        for _ in range(draws)
    ]
    return np.stack(chosen), np.repeat(np.arange(count), each)
