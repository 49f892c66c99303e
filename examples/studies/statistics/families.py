"""How often something is failed falsely: families of heads, and whole gates of fifteen limits.

Every true value stands exactly at its limit, where a false alarm is likeliest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from examples.studies.statistics import bca
from examples.studies.statistics.intervals import of_family, percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import (
    ALPHA,
    HEAD_LIMIT,
    HEADS,
    LIMITS,
    Settings,
)
from forgetguard.gate import accuracy, studentised
from forgetguard.gate.resampling import FloatArray, IntArray, enough_resamples

_BLOCK = 25  # runs that share their draws, which saves making them
LIMIT_KINDS = ("circuit", "head", "accuracy")
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What one circuit of a gate shows on n pairs in each of several runs, each true value at its
    limit.

    damage, importance: [runs, 1 + heads, n], the circuit first. limits: [1 + heads]. lost, won:
    [runs], pairs that changed sides. drop: the limit on accuracy. clusters: each run's own, where
    templates are resampled.
    """

    damage: FloatArray
    importance: FloatArray
    limits: FloatArray
    lost: npt.NDArray[np.int64]
    won: npt.NDArray[np.int64]
    drop: float
    clusters: Sequence[IntArray | None] | None = None


Gate = Callable[[np.random.Generator, int], Sequence[Sample]]


def heads(
    kind: str, rng: np.random.Generator, runs: int, pairs: int
) -> tuple[FloatArray, FloatArray]:
    """(damage, importance) of `HEADS` heads on the same pairs, [runs, heads, pairs], each at its
    limit.

    What a pair does to one head it half does to the others; the last head is worth 15 % of the
    first.
    """
    first, second = (
        math.sqrt(0.5)
        * (rng.standard_normal((runs, 1, pairs)) + rng.standard_normal((runs, HEADS, pairs)))
        for _ in range(2)
    )
    size = np.geomspace(3, 0.45, HEADS)[:, None]
    importance = size * np.exp(0.5 * first - 0.125)
    noise = _NOISES[kind](rng, second)
    return HEAD_LIMIT * importance + 0.2 * size * noise, importance


_NOISES: Mapping[str, Callable[[np.random.Generator, FloatArray], FloatArray]] = {
    "normal": lambda rng, latent: latent,
    "worsening": lambda rng, latent: np.exp(0.8 * latent - 0.32) - 1,
    "improving": lambda rng, latent: 1 - np.exp(0.8 * latent - 0.32),
    "heavy": lambda rng, latent: latent / np.sqrt(rng.chisquare(3, latent.shape) / 3),
}
KINDS: Mapping[str, str] = {
    "normal": "normal",
    "worsening": "skewed: a few pairs lose much",
    "improving": "skewed: a few pairs improve much",
    "heavy": "heavy tails: Student's t, 3 degrees of freedom",
}
CORRECTIONS: Mapping[str, str] = {
    "bca": "Bonferroni, BCa",
    "bonferroni": "Bonferroni, studentised",
    "max_t": "max-T (the gate's)",
}


def together(
    damage: FloatArray,
    importance: FloatArray,
    alpha: float,
    resamples: int,
    seed: int,
    clusters: Sequence[IntArray | None] | None = None,
) -> FloatArray:
    """The gate's common lower bounds of each run of [runs, heads, n], [runs, heads]."""
    wanted = enough_resamples(resamples, alpha)
    return np.array(
        [
            studentised.ratios(
                *rows, fail_alpha=alpha, resamples=wanted, seed=seed, clusters=codes
            ).corrected_low
            for *rows, codes in zip(
                damage, importance, clusters or [None] * len(damage), strict=True
            )
        ]
    )


def ends(settings: Settings) -> tuple[int, ...]:
    """The fewest pairs, and 64 or the most."""
    return tuple(sorted({settings.pairs[0], min(64, settings.pairs[-1])}))


def correction_jobs(settings: Settings) -> list[Job]:
    """One for each kind of data, number of pairs and number of limits."""
    cells = itertools.product(KINDS, ends(settings), (1, LIMITS))
    return [partial(_corrections, *cell, settings) for cell in cells]


def _corrections(kind: str, pairs: int, limits: int, settings: Settings) -> list[Record]:
    """How often any of eight heads is said to be beyond its limit, in per cent: nominally 5 where
    the limit is the only one of its run, 0.33 where it is one of fifteen."""
    tried = settings.families
    blocks = [
        _any_beyond(kind, pairs, block, min(_BLOCK, tried), ALPHA / limits)
        for block in range(max(1, tried // _BLOCK))
    ]
    shares = {name: percent(np.concatenate([one[name] for one in blocks])) for name in CORRECTIONS}
    return [{"data": kind, "pairs": pairs, "limits": limits, "families": tried, **shares}]


def _any_beyond(kind: str, pairs: int, block: int, runs: int, alpha: float) -> dict[str, Flags]:
    """Whether any head's lower bound is beyond its limit, [runs], by each correction."""
    damage, importance = heads(kind, np.random.default_rng((block, pairs)), runs, pairs)
    rows = damage.reshape(-1, pairs), importance.reshape(-1, pairs)
    single = alpha / HEADS
    given: dict[str, Any] = {"resamples": enough_resamples(1999, single), "seed": block}
    separate = bca.ratios_of_means(*rows, fail_alpha=single, **given).corrected_low
    alone = of_family(studentised.ratios(*rows, confidence=1 - single, fail_alpha=0, **given))[0]
    gates = together(damage, importance, alpha, 1999, block)
    return {
        "bca": np.reshape(separate, (runs, HEADS)).max(axis=1) > HEAD_LIMIT,
        "bonferroni": alone.reshape(runs, HEADS).max(axis=1) > HEAD_LIMIT,
        "max_t": gates.max(axis=1) > HEAD_LIMIT,
    }


# --- whole gates -----------------------------------------------------------------------------


def false_alarms(
    gate: Gate, runs: int, resamples: int, seed: int, *, corrected: bool = True
) -> dict[str, Any]:
    """How often, in per cent, null runs of `gate` fail any limit (`any`), and each kind of limit
    its own; with `corrected` False as if each limit were the only one of its run."""
    blocks = []
    for block in range(max(1, runs // _BLOCK)):
        samples = gate(np.random.default_rng((seed, block)), min(_BLOCK, runs))
        alpha = ALPHA / (len(LIMIT_KINDS) * len(samples)) if corrected else ALPHA
        blocks.append(np.stack([_failed(one, alpha, resamples, block) for one in samples], axis=1))
    flags = np.concatenate(blocks)  # [run, circuit, limit]
    kinds = {kind: percent(flags[..., place]) for place, kind in enumerate(LIMIT_KINDS)}
    return {"runs": len(flags), "any": percent(flags.reshape(len(flags), -1).max(axis=1)), **kinds}


def _failed(sample: Sample, alpha: float, resamples: int, seed: int) -> Flags:
    """Whether the circuit, any head, the accuracy fails at the one-sided level alpha each, [runs,
    limit]."""

    def beyond(rows: slice) -> Flags:
        given = sample.damage[:, rows], sample.importance[:, rows]
        low = together(*given, alpha, resamples, seed, sample.clusters)
        return np.asarray((low > sample.limits[rows]).any(axis=1))

    score = accuracy.drop_score(sample.lost, sample.won, sample.damage.shape[2], sample.drop)
    return np.stack(
        [beyond(slice(0, 1)), beyond(slice(1, None)), score > stats.norm.isf(alpha)], axis=1
    )
