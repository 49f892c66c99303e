"""What `detectable` and `detectable_sparse` deliver: the limit is put where the median verdict on
one checkpoint calls another's true value detectable, and how often the limit then fails on
subsamples of that other's damage is counted."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.real import Real, read, subsamples
from examples.studies.statistics.settings import ALPHA, LIMITS, Settings
from forgetguard.gate import power, studentised
from forgetguard.gate.linear_form import LinearForm
from forgetguard.gate.resampling import FloatArray, IntArray

LEAST = 0.03  # a damage that is worth a limit
SIZES = (64, 128)
_STEPS = 14


def jobs(settings: Settings, tiny: Path, others: tuple[Path, ...]) -> list[Job]:
    """One for each damage of a real checkpoint."""
    sets = read(tiny, others)
    chosen = [place for place, one in enumerate(sets) if one.value >= LEAST]
    return [partial(_records, place, settings, tiny, others) for place in chosen]


def _records(place: int, settings: Settings, tiny: Path, others: tuple[Path, ...]) -> list[Record]:
    """In per cent, how often the limit fails, by number of pairs, limits of the run and whether
    whole templates are drawn; where there is such a limit above 0. `itself`: `detectable` said by
    the checkpoint that has the damage; `less`: by the one of the same base that lost the most of
    those that lost less; `sparse`: `detectable_sparse` said by that one."""
    sets = read(tiny, others)
    hurt = sets[place]
    less = [one for one in sets if one.name == hurt.name and LEAST / 10 < one.value < hurt.value]
    nearest = max(less, key=lambda one: one.value, default=None)
    found: Record = {"circuit": hurt.name, "checkpoint": hurt.checkpoint}
    found |= {"dcv": round(hurt.value, 4), "itself": [], "less": [], "sparse": []}
    for whole, pairs, limits in itertools.product((False, True), SIZES, (1, LIMITS)):
        cell = _Cell(hurt, pairs, ALPHA / limits, whole, settings)
        asked = [("itself", hurt)]
        asked += [] if nearest is None else [("less", nearest), ("sparse", nearest)]
        for name, said in asked:
            share = cell.achieved(said, sparse=name == "sparse")
            if share is not None:
                found[name].append(round(share, 1))
    return [found]


@dataclass(frozen=True)
class _Cell:
    """Subsamples of `hurt`, of so many pairs, judged at the level `alpha`."""

    hurt: Real
    pairs: int
    alpha: float
    whole: bool
    settings: Settings

    def achieved(self, said: Real, *, sparse: bool) -> float | None:
        """How often the limit fails which the median verdict on `said` calls just detectable."""
        at, codes = self._drawn(said)
        form, low = self._bounds(said, at, codes)
        uneven = power.unevenness(said.importance[0][at])
        rows = list(zip(form.values, form.values - low, form.errors(), uneven, strict=True))
        templates = math.inf if codes is None else form.freedom + 1  # as `Case.drawn`
        loss = 2.0 if self.hurt.name.endswith("readout") else 1.0

        def of_any(row: tuple[float, float, float, float], limit: float) -> float | None:
            return power.detectable_sparse(
                *row[1:3],
                limit,
                pairs=self.pairs,
                loss=loss,
                unevenness=row[3],
                freedom=form.freedom,
                templates=templates,
            )

        def of_itself(row: tuple[float, float, float, float], limit: float) -> float | None:
            growth, most = power.growth(self.pairs, templates), of_any(row, limit)
            return power.detectable(*row[:3], limit, freedom=form.freedom, growth=growth, most=most)

        def stated(limit: float) -> float:
            found = [(of_any if sparse else of_itself)(row, limit) for row in rows]
            return float(np.median([math.inf if one is None else one for one in found]))

        least, most = 0.0, self.hurt.value
        if stated(least) > most:
            return None
        for _ in range(_STEPS):
            middle = (least + most) / 2
            fits = stated(middle) <= self.hurt.value
            least, most = (middle, most) if fits else (least, middle)
        if said is not self.hurt:
            low = self._bounds(self.hurt, at, codes)[1]
        return 100 * float((low > least).mean())

    def _drawn(self, said: Real) -> tuple[IntArray, IntArray | None]:
        draws, seed = self.settings.detected, round(1 / self.alpha)
        return subsamples(said.templates, self.pairs, draws, seed, whole=self.whole)

    def _bounds(
        self, one: Real, at: IntArray, codes: IntArray | None
    ) -> tuple[LinearForm, FloatArray]:
        form = LinearForm.of(one.damage[0][at], one.importance[0][at], codes)
        wanted = max(self.settings.resamples, round(10 / self.alpha))
        drawn = studentised.resampled_t(form, form.values, wanted, 1)
        return form, form.lower(studentised.quantiles(drawn, self.alpha, form.freedom))
