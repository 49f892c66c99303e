"""The same questions on real models: subsamples of a large set of prompt pairs of the tiny family.

The large set is the truth. Subsamples are drawn from it with replacement, as new pairs would be
drawn from the task: the templates are those of the task, so resampling pairs is right, and
resampling templates, as the gate does, says more than is asked for here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

import forgetguard as fg
from examples.studies.statistics.families import Sample, ends, false_alarms
from examples.studies.statistics.intervals import of_family
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import (
    ALPHA,
    CIRCUIT_LIMIT,
    FLOOR,
    HEAD_LIMIT,
    Settings,
)
from forgetguard.errors import SpecificationError
from forgetguard.gate import studentised
from forgetguard.gate.bundled import bundled_files
from forgetguard.gate.declaration import GateSpec, TaskPairs
from forgetguard.gate.resampling import FloatArray, IntArray, cluster_codes
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.measures.samples import BASE, CIRCUIT, CORRECT, DAMAGE, IMPORTANCE

Say = Callable[[str], None]
_SEED = 7  # of the tasks' pairs: others than those the circuits were found with
_SHARED = 25


@dataclass(frozen=True, slots=True, eq=False)
class LargeSet:
    """A circuit on many pairs of one checkpoint.

    damage, importance: [1 + heads, n], the circuit first. base_correct, tuned_correct: [n].
    templates: [n], the code of each pair's template.
    """

    circuit: str
    checkpoint: str
    damage: FloatArray
    importance: FloatArray
    base_correct: npt.NDArray[np.bool_]
    tuned_correct: npt.NDArray[np.bool_]
    templates: IntArray

    def held(self, chosen: IntArray) -> tuple[FloatArray, FloatArray]:
        """(damage, importance) of the chosen pairs, heads held to at least `FLOOR` of the
        circuit's importance, as the gate holds them."""
        damage, importance = self.damage[:, chosen], self.importance[:, chosen]
        least = FLOOR * importance[:1]
        weak = np.abs(importance.mean(axis=1)) < abs(float(least.mean()))
        return damage, np.where(weak[:, None], least, importance)

    def ratios(self) -> FloatArray:
        """What is true of the large set, [1 + heads]."""
        damage, importance = self.held(np.arange(self.damage.shape[1]))
        found: FloatArray = damage.mean(axis=1) / importance.mean(axis=1)
        return found


def large_sets(settings: Settings, say: Say) -> list[LargeSet]:
    """Measure them, in the order of the settings' checkpoints and circuits."""
    found = []
    for checkpoint in settings.checkpoints:
        specs = [_spec(name, settings.large) for name in settings.circuits]
        pair = fg.load(base="tiny:base", tuned=checkpoint, device="cpu")
        session = GateSession(pair, specs)
        for spec in specs:
            say(f"{checkpoint}: {settings.large} pairs of {spec.capability}")
            found.append(_large_set(session, spec, checkpoint))
        session.close()
    return found


def _spec(capability: str, pairs: int) -> GateSpec:
    name = f"tiny-{capability}.circuit.yaml"
    for path in bundled_files():
        if path.name == name:
            given = TaskPairs(capability, pairs, _SEED)
            return replace(load_gate_file(path), pairs=given)
    raise SpecificationError(f"there is no bundled circuit {name}")


def _large_set(session: GateSession, spec: GateSpec, checkpoint: str) -> LargeSet:
    found = session.measurement(spec)
    heads = [str(member) for member in sorted(spec.members)]
    names = [unit.template for unit in found.units]
    parts = (CIRCUIT, *heads)
    return LargeSet(
        spec.capability,
        checkpoint,
        np.stack([found.need(DAMAGE, part) for part in parts]),
        np.stack([found.need(IMPORTANCE, part, BASE) for part in parts]),
        found.need(CORRECT, role=BASE) != 0,
        found.need(CORRECT) != 0,
        np.unique(names, return_inverse=True)[1].astype(np.intp),
    )


def save(sets: Sequence[LargeSet], path: Path) -> None:
    """Keep large sets, so that a study need not measure them again."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for place, one in enumerate(sets):
        for name in LargeSet.__dataclass_fields__:
            arrays[f"{place}.{name}"] = np.asarray(getattr(one, name))
    np.savez(path, allow_pickle=False, **arrays)


@cache
def read(path: Path) -> list[LargeSet]:
    """What `save` kept."""
    with np.load(path) as kept:
        count = 1 + max(int(name.split(".")[0]) for name in kept)
        fields = LargeSet.__dataclass_fields__
        rows = [{name: kept[f"{place}.{name}"] for name in fields} for place in range(count)]
    return [
        LargeSet(**{**row, "circuit": str(row["circuit"]), "checkpoint": str(row["checkpoint"])})
        for row in rows
    ]


def shape_jobs(large: Path) -> list[Job]:
    """One for all."""
    return [partial(shapes, large)]


def shapes(large: Path) -> list[Record]:
    """What the data are like: a record for each circuit, with the range over its heads of the
    residuals' skewness and excess kurtosis, and of the correlation of damage and importance."""
    found = []
    for one in read(large):
        residuals = one.damage - one.ratios()[:, None] * one.held(np.arange(one.damage.shape[1]))[1]
        residuals = residuals * np.sign(one.importance.mean(axis=1, keepdims=True))
        together = [
            float(np.corrcoef(*rows)[0, 1]) if np.std(rows[0]) > 0 else 0.0
            for rows in zip(one.damage, one.importance, strict=True)
        ]
        truth = one.ratios()
        found.append(
            {
                "circuit": one.circuit,
                "checkpoint": one.checkpoint,
                "pairs": one.damage.shape[1],
                "heads": len(one.damage) - 1,
                "templates": len(np.unique(one.templates)),
                "dcv": round(float(truth[0]), 4),
                "worst_head": round(float(truth[1:].max()), 4),
                "skewness": _range(stats.skew(residuals, axis=1)),
                "kurtosis": _range(stats.kurtosis(residuals, axis=1)),
                "correlation": _range(np.array(together)),
            }
        )
    return found


def _range(values: FloatArray) -> list[float]:
    return [round(float(values.min()), 2), round(float(values.max()), 2)]


def coverage_jobs(settings: Settings, large: Path) -> list[Job]:
    """One for each number of pairs and what is resampled."""
    cells = itertools.product(settings.pairs, ("pairs", "templates"))
    return [partial(_coverage, *cell, settings, large) for cell in cells]


def _coverage(pairs: int, way: str, settings: Settings, large: Path) -> list[Record]:
    """How often subsamples' bounds miss the large set's values, in per cent: a record of circuits
    and one of heads, as in the made-up data; and of the row that misses most (`worst`)."""
    tried = settings.draws if way == "pairs" else max(1, settings.draws // 4)
    misses = [_misses(one, pairs, way, tried, settings.resamples) for one in read(large)]
    found = []
    for what, rows in (("circuit", slice(0, 1)), ("head", slice(1, None))):
        chosen = np.concatenate([one[rows] for one in misses])
        low, high, out = (100 * chosen.mean(axis=0)).tolist()
        found.append(
            {
                "pairs": pairs,
                "resampled": way,
                "what": what,
                "rows": len(chosen),
                "draws": tried,
                "low": round(low, 2),
                "high": round(high, 2),
                "holds": round(100 - out, 2),
                "worst": round(100 * float(chosen[:, :2].max()), 2),
            }
        )
    return found


def _misses(one: LargeSet, pairs: int, way: str, tried: int, resamples: int) -> FloatArray:
    """How often either bound, and the two-sided interval, misses, [1 + heads, 3]."""
    truth, total = one.ratios(), np.zeros((len(one.damage), 3))
    for draw in range(tried):
        chosen = np.random.default_rng((pairs, draw)).integers(0, one.damage.shape[1], pairs)
        clusters = None
        if way == "templates":
            clusters = _clusters(one, chosen)
        damage, importance = one.held(chosen)
        given: dict[str, Any] = {"resamples": resamples, "seed": draw // _SHARED}
        low, high = _fieller(damage, importance, 1 - ALPHA, clusters, given)
        least, most = _fieller(damage, importance, 1 - ALPHA / 2, clusters, given)
        total += np.stack([low > truth, high < truth, (least > truth) | (most < truth)], axis=1)
    return total / tried


def _fieller(
    damage: FloatArray,
    importance: FloatArray,
    confidence: float,
    clusters: IntArray | None,
    given: dict[str, Any],
) -> tuple[FloatArray, FloatArray]:
    found = studentised.ratios(
        damage, importance, confidence=confidence, fail_alpha=0, clusters=clusters, **given
    )
    return of_family(found)


def gate_jobs(settings: Settings, large: Path) -> list[Job]:
    """One for each checkpoint, number of pairs and way."""
    cells = itertools.product(settings.checkpoints, ends(settings), ("runs", *_FEWER))
    return [partial(_gates, *cell, settings, large) for cell in cells]


_FEWER = ("alone", "templates")


def _gates(checkpoint: str, pairs: int, way: str, settings: Settings, large: Path) -> list[Record]:
    """`false_alarms` of the tiny family's gate, three limits a circuit, its damage moved so that
    every true value stands at its limit. `alone`: as if each limit were the only one of its run;
    `templates`: with templates resampled, as the gate resamples them."""
    own = [one for one in read(large) if one.checkpoint == checkpoint]

    def gate(rng: np.random.Generator, runs: int) -> list[Sample]:
        return [_at_limit(one, pairs, rng, runs, templates=way == "templates") for one in own]

    tried = settings.runs // 4 if way in _FEWER else settings.runs
    result = false_alarms(gate, tried, settings.resamples, pairs, corrected=way != "alone")
    return [{"data": checkpoint, "pairs": pairs, "way": way, **result}]


def _at_limit(
    one: LargeSet, pairs: int, rng: np.random.Generator, runs: int, *, templates: bool = False
) -> Sample:
    chosen = rng.integers(0, one.damage.shape[1], (runs, pairs))
    limits = np.array([CIRCUIT_LIMIT, *[HEAD_LIMIT] * (len(one.damage) - 1)])
    truth = one.ratios()
    samples = [one.held(row) for row in chosen]
    importance = np.stack([row[1] for row in samples])
    damage = np.stack([row[0] for row in samples]) + (limits - truth)[:, None] * importance
    base, tuned = one.base_correct[chosen], one.tuned_correct[chosen]
    return Sample(
        damage,
        importance,
        limits,
        (base & ~tuned).sum(axis=1),
        (~base & tuned).sum(axis=1),
        max(float(one.base_correct.mean() - one.tuned_correct.mean()), 0.0),
        [_clusters(one, row) for row in chosen] if templates else None,
    )


def _clusters(one: LargeSet, chosen: IntArray) -> IntArray | None:
    return cluster_codes([f"t{code}" for code in one.templates[chosen]])
