"""Reads every null for the declared circuits, and holds their limits against what was read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from forgetguard.calibration import nulls
from forgetguard.calibration.copies import Moved, describe_plain, moved
from forgetguard.calibration.limits import (
    ALARM,
    STEP,
    LimitReading,
    Stated,
    at_least_one_step,
    read_limit,
    stated,
)
from forgetguard.calibration.prepared import Prepared, prepare
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.discovery.ranking import Progress
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.suggestion import TOO_MUCH
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.parameter_drift import weight_pairs
from forgetguard.measures.samples import (
    BASE,
    CIRCUIT,
    CORRECT,
    DAMAGE,
    IMPORTANCE,
    READOUT,
    Note,
    Samples,
)

DRAWS = 20
BATCH_DRAWS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One reading of one circuit.

    circuit: its DCV, NaN where the file has none. head: the largest DCV of a head whose importance
        is at least a tenth of the circuit's, and that head's name. readout, accuracy: what the
        whole model lost, as a share of the base's mean readout, and in accuracy. held: by limit.
    """

    null: nulls.Null
    circuit: float
    head: tuple[str, float] | None
    readout: float
    accuracy: float
    held: Mapping[str, LimitReading]


@dataclass(frozen=True, slots=True)
class Advice:
    """A declared limit beside what the nulls need.

    harmless: the largest limit that any harmless null needed, to pass.
    passes, not_fails: the limits from which on the next random change passes, and does not fail, at
        the stated rate; None without such draws.
    suggested: what the nulls need together; inf where one cannot pass at any limit, and `why`.
    held_, failed_: how many of the nulls the limit as it is declared holds, and fails.
    """

    limit: Limit
    harmless: float
    passes: Stated | None
    not_fails: Stated | None
    suggested: float
    held_harmless: int
    failed_harmless: int
    held_matched: int
    failed_matched: int
    why: Code | None = None

    @property
    def noisy(self) -> bool:
        """Whether what the nulls need is no limit: it lets half be lost, of what is a share, or
        everything."""
        is_share = self.limit.measure.unit.below is not None
        return self.suggested >= (TOO_MUCH if is_share else math.inf)

    @property
    def judgement(self) -> str:
        """What the declared limit is, in the words of docs/calibration.md."""
        if self.failed_harmless:
            return "false alarms"
        if self.noisy:
            return "too noisy"
        if self.held_harmless:
            return "too few pairs"
        if self.passes is not None and self.limit.maximum < self.suggested - STEP / 2:
            return "tight"
        if self.passes is not None and self.limit.maximum > self.suggested + STEP / 2:
            return "looser than needed"
        return "fits"

    @property
    def written(self) -> float:
        """The number that --write puts there. A limit that lets half be lost is never written.
        Harmless nulls alone say how large a limit must be, not how small it may be: without a
        yardstick it is only ever raised."""
        if self.noisy:
            return self.limit.maximum
        if self.passes is None:
            return max(self.limit.maximum, self.suggested)
        return self.suggested


@dataclass(frozen=True, slots=True, eq=False)
class CircuitCalibration:
    """What was read for one circuit. `tuned` and `sets` are there where a tuned model was given."""

    spec: GateSpec
    n_pairs: int
    rows: tuple[Row, ...]
    advice: tuple[Advice, ...]
    tuned: Row | None
    sets: nulls.HeadSets | None
    notes: tuple[Note, ...]

    def of(self, *kinds: str) -> tuple[Row, ...]:
        """The rows of these kinds."""
        return tuple(row for row in self.rows if row.null.kind in kinds)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """All circuits; `moved`: how many tensors tuning moved, and by which norm in all (None without
    a tuned model). `refused`: circuits that were left out, and why."""

    circuits: tuple[CircuitCalibration, ...]
    refused: tuple[str, ...]
    alarm: float
    draws: int
    seed: int
    moved: tuple[int, float] | None
    notes: tuple[str, ...]


def calibrate(
    pair: ModelPair,
    circuits: Sequence[GateSpec],
    *,
    draws: int = DRAWS,
    alarm: float = ALARM,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Read the nulls of `circuits` on the pair's base, and of its tuned model where it has one.

    Args:
        draws: of random weight changes and of random head sets.
        alarm: the rate at which a limit may hold a null.
        seed: of all that is drawn.
        cache: where `circuit: auto` is kept; default: the user's.

    Raises:
        ForgetguardError: the base cannot be measured, or can do none of the capabilities.
    """
    # First: what does not fit is said before anything is measured.
    changes: Mapping[str, Moved] | None = None
    if len(pair.checkpoints) > 1:
        describe_plain(pair.base.spec, pair.options)
        changes = moved(weight_pairs(pair.base.spec, pair.tuned.spec, pair.options))
    prepared = prepare(pair, circuits, cache=cache, progress=progress)
    setting = nulls.Setting(pair, prepared.ready, seed, progress)
    kernel = nulls.read_kernel(setting)
    reads: list[Iterable[nulls.Read]] = [[nulls.read_dtype(setting)]]
    if not isinstance(kernel, str):
        reads.append([kernel])
    size: tuple[int, float] | None = None
    sets: Mapping[str, nulls.HeadSets] = {}
    if changes is not None:
        size = len(changes), math.hypot(*(one.norm for one in changes.values()))
        tuned, sets = nulls.read_tuned(setting, draws)
        reads += [[tuned], nulls.read_matched(setting, changes, draws)]
    readings = [
        *nulls.patched(setting, chain(*reads)),
        *nulls.batches_readings(setting, BATCH_DRAWS),
    ]
    family = sum(len(one.spec.limits) for one in prepared.ready)
    found = tuple(
        _circuit(one, readings, sets.get(one.spec.name), alarm=alarm, seed=seed, family=family)
        for one in prepared.ready
    )
    notes = (kernel,) if isinstance(kernel, str) else ()
    return Calibration(found, prepared.refused, alarm, draws, seed, size, notes)


# --- one circuit ----------------------------------------------------------------------------------


def _circuit(
    prepared: Prepared,
    readings: Sequence[nulls.Reading],
    sets: nulls.HeadSets | None,
    *,
    alarm: float,
    seed: int,
    family: int,
) -> CircuitCalibration:
    spec = prepared.spec

    def row(reading: nulls.Reading) -> Row:
        samples = reading.samples[spec.name]
        verdicts = {
            limit.key: read_limit(spec, limit, samples, seed=seed, family=family)
            for limit in spec.limits
        }
        return _row(reading.null, samples, verdicts)

    rows = tuple(row(reading) for reading in readings if reading.null.kind != nulls.TUNED)
    tuned = next((row(reading) for reading in readings if reading.null.kind == nulls.TUNED), None)
    return CircuitCalibration(
        spec,
        prepared.n_units,
        rows,
        tuple(advise(limit, rows, alarm) for limit in spec.limits),
        tuned,
        sets,
        prepared.notes,
    )


_WORTH = 0.1  # of the circuit's importance: below it a head's own ratio is mostly noise


def _row(null: nulls.Null, samples: Samples, verdicts: Mapping[str, LimitReading]) -> Row:
    circuit, worst = math.nan, None
    importance = samples.get(IMPORTANCE, CIRCUIT, BASE)
    if importance is not None:
        whole = float(importance.mean())
        damage = float(samples.need(DAMAGE, CIRCUIT).mean())
        circuit = damage / whole if whole else math.nan
        worst = _worst_head(samples, whole)
    readout, accuracy = math.nan, math.nan
    base = samples.get(READOUT, role=BASE)
    if base is not None:
        readout = float((base.mean() - samples.need(READOUT).mean()) / abs(base.mean()))
        right = samples.need(CORRECT, role=BASE)
        accuracy = float(right.mean() - samples.need(CORRECT).mean())
    return Row(null, circuit, worst, readout, accuracy, verdicts)


def _worst_head(samples: Samples, whole: float) -> tuple[str, float] | None:
    found = {}
    for name in samples.subjects(IMPORTANCE, BASE):
        worth, lost = samples.need(IMPORTANCE, name, BASE).mean(), samples.get(DAMAGE, name)
        if name[:1] == "L" and lost is not None and abs(worth) >= _WORTH * abs(whole):
            found[name] = float(lost.mean() / worth)
    worst = max(found, key=lambda name: found[name], default=None)
    return None if worst is None else (worst, found[worst])


def advise(limit: Limit, rows: Sequence[Row], alarm: float = ALARM) -> Advice:
    """What the readings of one limit say about it.

    Args:
        rows: of one circuit; harmless ones, and matched ones where there are any.
    """
    harmless = [row.held[limit.key] for row in rows if row.null.kind in nulls.HARMLESS]
    matched = [row.held[limit.key] for row in rows if row.null.kind == nulls.MATCHED]
    needed = max((one.passes for one in harmless), default=0.0)
    passes = stated([one.passes for one in matched], alarm) if matched else None
    suggested = at_least_one_step(needed)
    if passes is not None:
        suggested = max(suggested, passes.limit)
    stuck = next((one.why for one in (*harmless, *matched) if not math.isfinite(one.passes)), None)
    return Advice(
        limit,
        needed,
        passes,
        stated([one.not_fails for one in matched], alarm) if matched else None,
        suggested,
        sum(one.outcome is not Outcome.PASS for one in harmless),
        sum(one.outcome is Outcome.FAIL for one in harmless),
        sum(one.outcome is not Outcome.PASS for one in matched),
        sum(one.outcome is Outcome.FAIL for one in matched),
        stuck,
    )
