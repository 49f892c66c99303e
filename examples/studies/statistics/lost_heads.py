"""What a limit on every head does where one of them lost 70 %, on the importances of real circuits
and on made-up ones, at 64 pairs and in a run of fifteen limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.real import Real, read, subsamples
from examples.studies.statistics.settings import ALPHA, FLOOR, HEAD_LIMIT, LIMITS, Settings
from forgetguard.gate import studentised
from forgetguard.gate.resampling import FloatArray, IntArray

LOST = 0.70
PAIRS = 64
_NOISE, _ROUNDING = 0.006, 1e-7  # of intact heads' damage, in importances of the circuit
_MADE_UP = 15  # heads


def jobs(settings: Settings, tiny: Path, others: tuple[Path, ...]) -> list[Job]:
    """One for each circuit, way of drawing pairs and size of what intact heads lose."""
    names = ["", *dict.fromkeys(one.name for one in read(tiny, others) if len(one.damage) > 1)]
    return [
        partial(_records, name, whole, noise, settings, tiny, others)
        for name in names
        for whole in (False, True)
        for noise in ((_NOISE, _ROUNDING) if not name else (_NOISE,))
    ]


def _records(
    name: str,
    whole: bool,
    noise: float,
    settings: Settings,
    tiny: Path,
    others: tuple[Path, ...],
) -> list[Record]:
    """How often, in per cent, the limit fails by the head that lost `LOST` (each of those worth the
    floor in turn); passes when all are intact; and fails at all when each stands at its limit."""
    one = next(each for each in read(tiny, others) if each.name == name) if name else _made_up()
    scale, worth = one.held(), one.worth
    truth = one.damage[1:].mean(axis=1) / scale.mean(axis=1)
    edge = one.damage[1:] + (HEAD_LIMIT - truth)[:, None] * scale
    size, able = abs(float(one.importance[0].mean())), np.flatnonzero(worth >= FLOOR)
    at, codes = subsamples(one.templates, PAIRS, settings.heads, 3, whole=whole)
    rng, counts = np.random.default_rng(4), {"seen": 0, "passed": 0, "false": 0}
    low: Callable[..., FloatArray] = partial(_low, clusters=codes, resamples=settings.resamples)
    for number, chosen in enumerate(at):
        intact = noise * size * rng.standard_normal((len(worth), PAIRS))
        damage, head = intact.copy(), int(able[number % len(able)])
        share = np.exp(0.3 * rng.standard_normal(PAIRS) - 0.045)
        damage[head] += LOST * one.importance[1 + head, chosen] * share
        counts["seen"] += bool(low(damage, scale[:, chosen])[head] > HEAD_LIMIT)
        counts["false"] += bool(low(edge[:, chosen], scale[:, chosen]).max() > HEAD_LIMIT)
        high = studentised.ratios(
            intact, scale[:, chosen], fail_alpha=0, resamples=settings.resamples, clusters=codes
        ).estimates
        counts["passed"] += max(each.high for each in high) <= HEAD_LIMIT
    shares = {key: round(100 * count / len(at), 2) for key, count in counts.items()}
    record = {"circuit": name, "heads": len(worth), "whole": whole, "rounding": noise < _NOISE}
    return [record | {"draws": len(at)} | shares]


def _low(
    damage: FloatArray, scale: FloatArray, *, clusters: IntArray | None, resamples: int
) -> FloatArray:
    found = studentised.ratios(
        damage, scale, fail_alpha=ALPHA / LIMITS, resamples=resamples, clusters=clusters
    )
    return np.array(found.corrected_low)


def _made_up() -> Real:
    """Fifteen heads worth 10 to 30 % of the circuit, on 1,024 pairs of 16 templates; a tenth of the
    spread lies between templates. Their damage is noise."""
    rng, pairs = np.random.default_rng(9), 1024
    templates = np.arange(pairs) % 16
    worth: Sequence[float] = np.linspace(0.3, 0.1, _MADE_UP).tolist()

    def noise(rows: int) -> FloatArray:
        shared = rng.standard_normal((rows, 16))[:, templates]
        found: FloatArray = 0.1**0.5 * shared + 0.9**0.5 * rng.standard_normal((rows, pairs))
        return found

    spread = np.exp(0.5 * noise(1 + _MADE_UP) - 0.125)
    importance = 3 * np.array([1.0, *worth])[:, None] * spread
    return Real("", "", 0.3 * noise(1 + _MADE_UP) * importance, importance, templates)
