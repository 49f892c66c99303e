"""Drawing pairs until a limit is decided: what it saves, and how often it errs."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from examples.studies.statistics.doses import dosed
from examples.studies.statistics.intervals import of_family, percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import ALPHA, CIRCUIT_LIMIT, LIMITS, Settings
from forgetguard.gate import spending, studentised
from forgetguard.gate.resampling import FloatArray, enough_resamples

DOSES = (0.0, 0.03, 0.05, 0.07, 0.085, 0.1, 0.115, 0.13, 0.15, 0.2, 0.3)
FIRST, MOST = 32, 256
FIXED = "fixed"  # all pairs at once
_BLOCK = 250


def jobs(settings: Settings) -> list[Job]:
    """One for each spending function (and for all pairs at once) and true value."""
    return [
        partial(_records, kind, dose, settings)
        for kind in (*spending.SPENDING, FIXED)
        for dose in DOSES
    ]


def _records(kind: str, dose: float, settings: Settings) -> list[Record]:
    """Of a circuit whose limit is 0.10, how often it passes, fails and stays undecided, in per
    cent, and the mean number of pairs."""
    # Errors are what is rare: most sequences are spent where they are likeliest.
    tried = settings.sequences if dose == CIRCUIT_LIMIT else settings.sequences // 4
    outcomes = [
        _decide(kind, dose, block, min(_BLOCK, tried), settings.resamples)
        for block in range(max(1, tried // _BLOCK))
    ]
    passes, fails, used = (np.concatenate(part) for part in zip(*outcomes, strict=True))
    return [
        {
            "spending": kind,
            "dose": dose,
            "sequences": len(used),
            "passes": percent(passes),
            "fails": percent(fails),
            "undecided": percent(~passes & ~fails),
            "pairs": round(float(used.mean()), 1),
        }
    ]


def _decide(
    kind: str, dose: float, block: int, rows: int, resamples: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], FloatArray]:
    """Whether each of `rows` sequences passed, failed, and the pairs it took."""
    rng = np.random.default_rng((block, round(1000 * dose)))
    damage, importance = dosed(rng, (rows, MOST), dose)
    counts = (MOST,) if kind == FIXED else spending.stages(FIRST, MOST)
    passing, failing = _levels(kind, counts)
    passed, failed = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    used = np.full(rows, float(MOST))
    open_rows = np.arange(rows)
    for count, pass_alpha, fail_alpha in zip(counts, passing, failing, strict=True):
        seen = damage[open_rows, :count], importance[open_rows, :count]
        beyond = _bound(*seen, fail_alpha, resamples, block, 0) > CIRCUIT_LIMIT
        within = _bound(*seen, pass_alpha, resamples, block, 1) <= CIRCUIT_LIMIT
        passed[open_rows], failed[open_rows] = within, beyond & ~within
        decided = within | beyond
        used[open_rows[decided]] = count
        open_rows = open_rows[~decided]
        if not open_rows.size:
            break
    return passed, failed, used


def _levels(kind: str, counts: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if kind == FIXED:
        return (ALPHA,), (ALPHA / LIMITS,)
    return spending.spent(counts, ALPHA, kind), spending.spent(counts, ALPHA / LIMITS, kind)


def _bound(
    damage: FloatArray, importance: FloatArray, alpha: float, resamples: int, seed: int, side: int
) -> FloatArray:
    """The lower (side 0) or upper (1) bounds at `alpha`; infinite where nothing is spent."""
    if alpha <= 0:
        return np.full(len(damage), np.inf if side else -np.inf)
    found = studentised.ratios(
        damage,
        importance,
        confidence=1 - alpha,
        fail_alpha=0,
        resamples=min(19_999, enough_resamples(resamples, alpha)),
        seed=seed,
    )
    return of_family(found)[side]
