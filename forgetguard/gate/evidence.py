"""What stands beside a decision: members, units, controls and notes. It decides nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from forgetguard.errors import MeasurementError
from forgetguard.gate import same_function, slices, studentised
from forgetguard.gate.declaration import Limit
from forgetguard.gate.estimate import Case
from forgetguard.gate.family import subject_bounds, worst_first
from forgetguard.gate.verdict import ControlEvidence, Estimate, SubjectEvidence, UnitEvidence
from forgetguard.measures import registry
from forgetguard.measures.measure import Estimator, Measure, Subjects
from forgetguard.measures.samples import (
    BASE,
    BASELINE,
    CIRCUIT,
    COUNTERFACTUAL,
    DAMAGE,
    IMPORTANCE,
    READOUT,
    REFERENCE,
    SAID,
    TUNED,
    FloatArray,
    Note,
    Samples,
)

BESIDE = "dcv.head"  # what stands beside every limit of a circuit
SMALL_CIRCUIT = 0.1  # share of the readout below which a circuit hardly carries the capability
SMALL_EFFECT = 0.1  # of the readout, below which the base hardly reads the prompt


def members_beside(case: Case, limit: Limit, fewest: int) -> tuple[SubjectEvidence, ...]:
    """Those of the case's members that were patched alone, beside a limit; no reason to stop."""
    importance = case.circuit_importance()
    if case.count < fewest or importance is None:
        return ()
    wanted = [(IMPORTANCE, BASE), (DAMAGE, TUNED)]
    if limit.over in (REFERENCE, BASELINE):
        wanted.append((DAMAGE, limit.over))
    names = tuple(
        member
        for member in case.members
        if all(case.data.get(quantity, member, role) is not None for quantity, role in wanted)
    )
    if not names or not studentised.measurable(case.mean(importance)):
        return ()
    return _members(case, names, limit.over, limit.floor)


@lru_cache(maxsize=4)  # the same beside every limit of a file
def _members(
    case: Case, names: tuple[str, ...], over: str, floor: float
) -> tuple[SubjectEvidence, ...]:
    found = subject_bounds(replace(case, members=names), registry.find(BESIDE), over, floor)
    return worst_first(found, over, floor)


def worst_units(case: Case, limit: Limit, most: int) -> tuple[UnitEvidence, ...]:
    """The units that lost most, first; of a proportion those of them that changed sides for the
    worse. Units that lost nothing are no evidence."""
    loss = limit.measure.hurt(case.data)
    if loss is None:
        return ()
    hurt = loss > 0
    if limit.measure.of_right_or_wrong:
        sides = slices.lost(case, limit)
        if sides is None:
            return ()
        hurt = sides[0] > 0
    order = [int(at) for at in np.argsort(-loss, kind="stable") if hurt[at]]
    return tuple(_unit(case, at, float(loss[at])) for at in order[:most])


def _unit(case: Case, at: int, loss: float) -> UnitEvidence:
    unit, data = case.data.units[at], case.data

    def read(values: FloatArray | None) -> float | None:
        return None if values is None else float(values[at])

    base, damage = read(data.get(READOUT, role=BASE)), read(data.get(DAMAGE, CIRCUIT))
    return UnitEvidence(
        clean=unit.clean,
        loss=loss,
        counterfactual=getattr(unit, "counterfactual", None),
        answer=getattr(unit, "answer", None),
        distractor=getattr(unit, "distractor", None),
        base=base,
        patched=None if base is None or damage is None else base - damage,
        tuned=read(data.get(READOUT)),
        base_says=_says(data, at, BASE),
        tuned_says=_says(data, at, TUNED),
    )


def _says(data: Samples, at: int, role: str) -> str | None:
    """The text of the token that a model finds likeliest on a unit; None where it is not known."""
    found = data.get(SAID, role=role)
    return None if found is None else data.tokens.get(int(found[at]))


def controls(case: Case, limit: Limit) -> tuple[ControlEvidence, ...]:
    """Beside `dcv.circuit`: what other heads from tuned cost on the same pairs, as a share of the
    importance of this circuit, so that the numbers compare."""
    data, importance = case.data, case.circuit_importance()
    if limit.key != "dcv.circuit" or not data.controls or importance is None:
        return ()
    worthless = (
        case.count < 2  # no spread to estimate
        or not studentised.measurable(case.mean(importance))
    )
    found = []
    for one in data.controls:
        dcv, note = None, one.note
        damage = data.get(DAMAGE, one.subject)
        if damage is not None and worthless:
            note = Note("nothing_to_compare")
        elif damage is not None:
            dcv = case.ratio(damage, importance).estimate
        found.append(ControlEvidence(one.name, one.members, dcv, note))
    return tuple(found)


def notes(case: Case, limit: Limit, stopped: bool = False) -> tuple[Note, ...]:
    """What a reader of the verdict should know of the units and of the circuit. `stopped`: more
    units were not drawn though it is undecided."""
    data = case.data
    found = list(data.notes)
    if data.dropped:
        found.append(Note("dropped", {"dropped": data.dropped, "of": data.dropped + case.count}))
    if case.templates and case.clusters is None:
        found.append(Note("few_templates", {"templates": case.templates}))
    if data.stages:
        stage = data.stages.index(case.count) + 1
        facts = {"units": case.count, "most": data.stages[-1], "stage": stage}
        more = {"stages": len(data.stages)} | ({"stopped": True} if stopped else {})
        found.append(Note("drawn", facts | more))
    found += slices.said_instead(case, limit)
    found += slices.carrying(case, limit)
    importance, readout = case.circuit_importance(), data.get(READOUT, role=BASE)
    if limit.measure.needs_capability and readout is not None:
        found += _from_a_prior(readout, data.get(COUNTERFACTUAL, role=BASE))
    if limit.measure.needs_circuit and importance is not None and readout is not None:
        found += _weight(float(importance.mean()), float(readout.mean()))
    now = data.get(READOUT)
    if readout is not None and now is not None and _equal(case, readout, now):
        found.append(Note("no_effect", {"count": case.count}))
    elif limit.key == "dcv.circuit" and readout is not None and now is not None:
        found += _shares(case, readout, readout - now)
    return tuple(found)


def _equal(case: Case, readout: FloatArray, now: FloatArray) -> bool:
    """Whether tuned reads what the base does, and its members write it, bit for bit."""
    damages = (
        values
        for key, values in case.data.arrays.items()
        if (key.quantity, key.role) == (DAMAGE, TUNED)
    )
    return np.array_equal(readout, now) and not any(values.any() for values in damages)


def _shares(case: Case, readout: FloatArray, loss: FloatArray) -> list[Note]:
    """The circuit's damage beside what is known without patching: the base's readout, and what
    tuned lost of it, with the share of this loss that the circuit accounts for. (The readout is
    about half of an importance where the counterfactual flips the answer.)"""
    damage, equal = case.data.get(DAMAGE, CIRCUIT), same_function.apart(case.data, TUNED)
    if damage is None or case.count < 2 or (equal is not None and equal.equal):
        return []
    found = []
    if studentised.measurable(case.mean(readout)):
        scale = np.sign(readout.mean()) * readout
        facts = case.ratio(damage, scale).estimate.facts
        found.append(Note("share_of_readout", facts | {"lost": float(loss.mean() / scale.mean())}))
    lost = case.mean(loss)
    if studentised.measurable(lost) and lost.value > same_function.least(case.data):
        facts = case.ratio(damage, loss).estimate.facts
        found.append(Note("share_of_loss", facts | {"lost": lost.facts}))
    return found


def _from_a_prior(readout: FloatArray, counterfactual: FloatArray | None) -> list[Note]:
    """That the base answers all but alike when the prompt asks for something else: then drops of
    readout and accuracy hold no circuit that reads it."""
    if counterfactual is None:
        return []
    mean, effect = float(readout.mean()), float((readout - counterfactual).mean())
    if effect >= SMALL_EFFECT * abs(mean):
        return []
    return [Note("answers_from_prior", {"readout": mean, "effect": effect})]


def _weight(importance: float, readout: float) -> list[Note]:
    if importance < 0:
        return [Note("circuit_works_against")]
    if importance < SMALL_CIRCUIT * abs(readout):
        return [Note("small_circuit", {"share": importance / abs(readout)})]
    return []


# --- Then and now --------------------------------------------------------------------------------


def beside_baseline(case: Case, limit: Limit) -> tuple[Note, ...]:
    """What a recorded checkpoint read beside what this one reads, with the paired difference: one
    note on a limit that is not itself over the baseline (nor over a reference), where there is a
    baseline and the file declares no limit of that measure over it."""
    declared = {one.key for one in case.spec.limits}
    if limit.over or f"{limit.key}.over_baseline" in declared:
        return ()
    if case.count < 2 or not case.data.has_role(BASELINE):
        return ()
    measure = limit.measure
    if measure.subjects is not Subjects.WHOLE and not measure.has_floor:
        return ()
    note = _member_then(case, measure) if measure.has_floor else _whole_then(case, measure)
    return () if note is None else (note,)


def _whole_then(case: Case, measure: Measure) -> Note | None:
    if measure.estimator in (Estimator.EXACT, Estimator.SCORES):
        return None
    now = case.series(measure)
    try:
        then = measure.select(case.data, role=BASELINE)
    except MeasurementError:  # no limit asked for it when the baseline was recorded
        return None
    if measure.estimator is Estimator.PROPORTION:
        drop = case.proportion_drop(then.values, now.values).estimate
        return _then(measure, "", float(then.values.mean()), float(now.values.mean()), drop)
    scale = np.ones_like(now.values) if now.scale is None else now.scale
    return _ratio_then(case, measure, "", then.values, now.values, scale)


def _member_then(case: Case, measure: Measure) -> Note | None:
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
    return _ratio_then(case, measure, member, *pairs[member], circuit)


def _ratio_then(
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
    return _then(measure, subject, before, after, case.ratio(now - then, scale).estimate)


def _then(measure: Measure, subject: str, then: float, now: float, apart: Estimate) -> Note:
    facts = {"measure": measure.key, "subject": subject, "then": then, "now": now}
    return Note("beside_baseline", facts | apart.facts)
