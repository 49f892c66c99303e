"""Then and now: what a recorded checkpoint read beside what this one reads, with the paired
difference. It decides nothing."""

from __future__ import annotations

import numpy as np

from forgetguard.errors import MeasurementError
from forgetguard.gate import studentised
from forgetguard.gate.declaration import Limit
from forgetguard.gate.estimate import Case
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.measure import Estimator, Measure, Subjects
from forgetguard.measures.samples import BASELINE, DAMAGE, FloatArray, Note

_FEWEST = 2  # units, below which there is no spread to estimate


def beside_baseline(case: Case, limit: Limit) -> tuple[Note, ...]:
    """One note on a limit that is not itself over the baseline (nor over a reference), where
    there is a baseline and the file declares no limit of that measure over it."""
    declared = {one.key for one in case.spec.limits}
    if limit.over or f"{limit.key}.over_baseline" in declared:
        return ()
    if case.count < _FEWEST or not case.data.has_role(BASELINE):
        return ()
    measure = limit.measure
    if measure.subjects is not Subjects.WHOLE and not measure.has_floor:
        return ()
    note = _member(case, measure) if measure.has_floor else _whole(case, measure)
    return () if note is None else (note,)


def _whole(case: Case, measure: Measure) -> Note | None:
    if measure.estimator in (Estimator.EXACT, Estimator.SCORES):
        return None
    now = case.series(measure)
    try:
        then = measure.select(case.data, role=BASELINE)
    except MeasurementError:  # no limit asked for it when the baseline was recorded
        return None
    if measure.estimator is Estimator.PROPORTION:
        drop = case.proportion_drop(then.values, now.values).estimate
        return _note(measure, "", float(then.values.mean()), float(now.values.mean()), drop)
    scale = np.ones_like(now.values) if now.scale is None else now.scale
    return _ratio(case, measure, "", then.values, now.values, scale)


def _member(case: Case, measure: Measure) -> Note | None:
    """Of the member whose damage grew most, as a share of the circuit's importance: in that measure
    members that are worth little compare with the others."""
    circuit = case.circuit_importance()
    pairs = {
        member: (then, now)
        for member in case.members
        if (then := case.data.get(DAMAGE, member, BASELINE)) is not None
        and (now := case.data.get(DAMAGE, member)) is not None
    }
    if circuit is None or not pairs:
        return None
    sign = np.sign(circuit.mean())
    member = max(pairs, key=lambda one: float(sign * (pairs[one][1] - pairs[one][0]).mean()))
    return _ratio(case, measure, member, *pairs[member], circuit)


def _ratio(
    case: Case,
    measure: Measure,
    subject: str,
    then: FloatArray,
    now: FloatArray,
    scale: FloatArray,
) -> Note | None:
    if not studentised.measurable(case.mean(scale)):
        return None
    before, after = (float(one.mean() / scale.mean()) for one in (then, now))
    return _note(measure, subject, before, after, case.ratio(now - then, scale).estimate)


def _note(measure: Measure, subject: str, then: float, now: float, apart: Estimate) -> Note:
    facts = {"measure": measure.key, "subject": subject, "then": then, "now": now}
    return Note("beside_baseline", facts | apart.facts)
