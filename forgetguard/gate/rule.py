"""From samples to a verdict on one declared limit, as a pure function.

Pass: the upper bound is within the limit. Fail: the lower bound is beyond it. Otherwise abstain.

What is not judged at all, and so abstains: fewer than `FEWEST_PAIRS` units (no interval is worth
its name there); a capability the base cannot do; a circuit whose importance cannot be told from
zero. A saturated readout does not pass: what it shows is real, so a fail stands, but what it does
not show may be lost all the same. Numbers that are not finite are errors, never verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from forgetguard.capabilities.encoding import FEWEST_PAIRS
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.errors import ForgetguardError
from forgetguard.gate import accuracy, evidence, guard, power, same_function, studentised
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.estimate import FEWEST_EFFECTIVE, Bounds, Case, effective
from forgetguard.gate.family import (
    Denominator,
    SubjectBounds,
    foremost,
    subject_bounds,
    worst_first,
)
from forgetguard.gate.verdict import Code, Estimate, Outcome, SubjectEvidence, Verdict
from forgetguard.measures.measure import Estimator, Measure, Sampled, Series, Subjects
from forgetguard.measures.requirements import requirements
from forgetguard.measures.samples import (
    BASE,
    CORRECT,
    COUNTERFACTUAL,
    DAMAGE,
    IMPORTANCE,
    OWN_DAMAGE,
    READOUT,
    TUNED,
    Note,
    Samples,
    member_names,
)

# Of a small loss of the answer's logit, the share that its log-probability must show: with p the
# answer's probability the slope is 1 - p, so at 0.1 (p = 0.9) nine tenths stay out of sight. What
# reads a DCV of 0.25 in logits (half of the margin lost) reads 0.08 there, and 0.014 at p = 0.993.
LEAST_ROOM = 0.1
GUARD = 1.0  # what an imagined pair is recommended to lose: a full importance


@dataclass(frozen=True, slots=True)
class Decision:
    """What a limit came to, with what only this limit knows of the evidence."""

    outcome: Outcome
    code: Code
    facts: dict[str, Any] = field(default_factory=dict)
    estimate: Estimate | None = None
    subject: str = ""
    subjects: tuple[SubjectEvidence, ...] = ()
    notes: tuple[Note, ...] = ()
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class Estimated:
    """What the measure of a limit came to, before any maximum is looked at.

    subjects: what is held to the limit, largest first; one without a name for the whole.
    scale: what it is relative to, where it is a ratio.
    unmeasurable: why nothing can be held to the limit, where nothing can.
    saturated: the base's mean probability of the answer, where it leaves no room to see a loss.
    identical: whether the two models read the same on every unit, bit for bit.
    """

    subjects: tuple[SubjectBounds, ...] = ()
    scale: Estimate | None = None
    unmeasurable: Decision | None = None
    saturated: float | None = None
    identical: bool = False


def judge(
    spec: GateSpec,
    limit: Limit,
    samples: Samples,
    *,
    seed: int = 0,
    worst: int = 5,
    family: int = 1,
) -> Verdict:
    """Decide one limit of one gate file.

    The same data and seed give the same verdict, whatever the order of units, members, limits or
    files: units and members are put into an order of their own, and the draws depend on the run's
    seed and the file's name only. Raising a limit never turns a pass into anything else. A larger
    family makes fails rarer and leaves passes as they are.

    Args:
        spec: the gate file; its `confidence` is the one-sided level.
        limit: one of its limits.
        samples: what was read on its units; with `stages`, those at one of the stages.
        seed: the run's.
        worst: how many units to show at most.
        family: the number of limits of the run, which share its false-alarm rate.

    Raises:
        MeasurementError: a value is not finite, shapes differ, or what the limit needs is missing.
        SpecificationError: there is no such measure, the limit compares with a model that was not
            measured, or `family` is below 1.
    """
    case = _case(spec, samples, seed, family)
    decision = decide(case, limit)
    # Where something is amiss, all that was patched one by one says where.
    amiss = is_located(decision, case.data)
    whole = _case(spec, samples, seed, family, whole=True) if amiss else case
    if decision.outcome is Outcome.FAIL and limit.measure.has_floor:
        decision = decide(whole, limit)  # the same, and own damage says which head to name
    data, subjects = case.data, decision.subjects
    if not subjects or (amiss and limit.measure.has_floor):
        subjects = evidence.members_beside(whole, limit, FEWEST_PAIRS)
    return Verdict(
        circuit=spec.name,
        capability=spec.capability,
        limit=limit.key,
        bound=limit.maximum,
        outcome=decision.outcome,
        estimate=decision.estimate,
        code=decision.code,
        facts=decision.facts,
        subjects=subjects,
        units=evidence.worst_units(case, limit, worst),
        file="" if spec.path is None else str(spec.path),
        line=limit.line,
        notes=evidence.notes(case, limit, _stopped(decision, data))
        + evidence.beside_baseline(case, limit)
        + decision.notes,
        subject=decision.subject,
        family=family,
        detectable=decision.detectable,
        budget=data.stages[-1] if data.stages else None,
        controls=evidence.controls(case, limit),
    )


@lru_cache(maxsize=4)  # a file's limits come one after another, with the same evidence beside them
def _case(spec: GateSpec, samples: Samples, seed: int, family: int, *, whole: bool = False) -> Case:
    data = samples if whole else _as_judged(spec, samples)
    return Case.of(spec, data, seed=seed, family=family)


def _as_judged(spec: GateSpec, samples: Samples) -> Samples:
    """Without what was read to find where a loss is: so a verdict does not depend on what other
    limits of the file came to. Where a limit is on parts of its own (thirds of the layers), all the
    heads that it patches were read for it."""
    beside = {*member_names(spec.members)} - {*member_names(spec.judged_alone)}
    if any(
        one.measure.patched is not None
        and one.measure.subjects not in (Subjects.WHOLE, Subjects.MEMBERS)
        for one in spec.limits
    ):
        beside = set()
    arrays = {
        key: values
        for key, values in samples.arrays.items()
        if key.quantity != OWN_DAMAGE
        and not (key.subject in beside and key.quantity in (IMPORTANCE, DAMAGE))
    }
    return replace(samples, arrays=arrays)


def decide(case: Case, limit: Limit) -> Decision:
    """What a limit comes to, and what a pass leaves open (errors as `judge`)."""
    decision = _decide(case, limit)
    if decision.outcome is not Outcome.PASS or limit.measure.estimator is Estimator.EXACT:
        return decision
    return replace(decision, notes=decision.notes + _left_open(case, limit, decision.code))


def _decide(case: Case, limit: Limit) -> Decision:
    case = replace(case, guard=limit.guard)
    found = estimate(case, limit)
    if found.unmeasurable is not None:
        return found.unmeasurable
    if found.identical:
        held = found.subjects[0].held.estimate
        role = limit.over or BASE
        return Decision(Outcome.PASS, Code.IDENTICAL, {"role": role}, held)
    if limit.measure.subjects is Subjects.WHOLE:
        decision = _of_the_whole(case, limit, found)
    else:
        decision = _of_every_subject(case, limit, found)
    decision = _few_carry(case, limit, decision)
    if found.saturated is None:
        return _function_first(case, limit, decision)
    if decision.outcome is Outcome.FAIL:
        return decision
    instead = {"probability": found.saturated, "instead": decision.code.value}
    return replace(
        decision,
        outcome=Outcome.ABSTAIN,
        code=Code.SATURATED,
        facts=decision.facts | instead,
        detectable=None,
    )


# --- what there is to hold to a limit --------------------------------------------------------


def estimate(case: Case, limit: Limit) -> Estimated:
    """What the limit's measure came to: its maximum is not looked at (errors as `judge`)."""
    measure = limit.measure
    if measure.estimator is Estimator.EXACT:
        case.check_over(limit.over, limit.key, limit.line)
        return Estimated(tuple(_bounds(case, limit)))
    reason = _too_few(case) or _base_cannot(case, measure) or _no_circuit(case, measure)
    if reason is not None:
        return Estimated(unmeasurable=reason)
    case.check_over(limit.over, limit.key, limit.line)
    scale, reason = _scale(case, limit)
    reason = reason or _too_few_of_one(case, limit) or _nothing_to_lose(case, limit)
    if reason is not None:
        return Estimated(scale=scale, unmeasurable=reason)
    whole = measure.subjects is Subjects.WHOLE
    if whole and measure.estimator is Estimator.PROPORTION and _identical(case, limit):
        # Equal real numbers on every pair are no sample of 0s and 1s: the models compute the same.
        same = Estimate(0.0, 0.0, 0.0, studentised.coverage(1 - case.levels.passing), case.count)
        return Estimated((SubjectBounds("", Bounds(same, 0.0)),), identical=True)
    return Estimated(tuple(_bounds(case, limit)), scale, saturated=_saturated(case, measure))


def _bounds(case: Case, limit: Limit) -> list[SubjectBounds]:
    measure = limit.measure
    if measure.subjects is Subjects.WHOLE:
        (held,) = case.bounds(measure, [""], limit.over)
        return [SubjectBounds("", held, value=held.estimate)]
    if measure.has_floor:
        case = replace(case, members=member_names(case.spec.judged_alone))
    return subject_bounds(case, measure, limit.over, limit.floor)


def _abstain(code: Code, **facts: Any) -> Decision:
    return Decision(Outcome.ABSTAIN, code, facts)


def _too_few(case: Case) -> Decision | None:
    if case.count >= FEWEST_PAIRS:
        return None
    return _abstain(Code.TOO_FEW, dropped=case.data.dropped, count=case.count, least=FEWEST_PAIRS)


def _too_few_of_one(case: Case, limit: Limit) -> Decision | None:
    """Of subjects that have units of their own: the one with the fewest, where that is too few."""
    if limit.measure.estimator is not Estimator.SCORES:
        return None
    counts = {
        one: len(case.series(limit.measure, one).values)
        for one in limit.measure.subjects_in(case.data)
    }
    subject = min(counts, key=lambda one: counts[one])
    if counts[subject] >= FEWEST_PAIRS:
        return None
    facts = {"subject": subject, "count": counts[subject], "least": FEWEST_PAIRS}
    return _abstain(Code.TOO_FEW, dropped=0, **facts)


def _nothing_to_lose(case: Case, limit: Limit) -> Decision | None:
    """Of scores: the limit allows all that the base has above chance, whatever the subject."""
    if limit.measure.estimator is not Estimator.SCORES or limit.over:
        return None
    rooms = {
        one: _room(case.series(limit.measure, one)) for one in limit.measure.subjects_in(case.data)
    }
    subject = max(rooms, key=lambda one: rooms[one][2])
    before, chance, most = rooms[subject]
    if most > limit.maximum:
        return None
    return _abstain(Code.NOTHING_TO_LOSE, subject=subject, before=before, chance=chance)


def _room(found: Series) -> tuple[float, float, float]:
    """The base's mean score, what a model that knows nothing reads, and how much it can lose."""
    assert found.scale is not None
    before = float(found.scale.mean())
    return before, found.chance, before - found.chance


def _base_cannot(case: Case, measure: Measure) -> Decision | None:
    """Why the base does not do the capability, if so: then there is nothing to lose."""
    if not measure.needs_capability:
        return None
    readout = READOUTS[case.spec.readout]
    read = (case.data.need(one, role=BASE) for one in (READOUT, COUNTERFACTUAL, CORRECT))
    for one in requirements(readout, *read):
        found = case.accuracy(one.values) if one.proportion else case.mean(one.values)
        if not found.low > one.above:
            return _abstain(_BASE_CANNOT[one.name], count=case.count, **found.facts)
    return None


_BASE_CANNOT = {
    "right": Code.BASE_WRONG,
    "readout": Code.BASE_READOUT,
    "effect": Code.BASE_UNMOVED,
}


def _no_circuit(case: Case, measure: Measure) -> Decision | None:
    """Why DCV cannot be judged, where `circuit: auto` found none."""
    if not case.spec.auto or case.spec.members or not measure.needs_circuit:
        return None
    return _abstain(Code.NO_CIRCUIT)


def _scale(case: Case, limit: Limit) -> tuple[Estimate | None, Decision | None]:
    """What a ratio is relative to, and that it cannot be told from 0, where it cannot."""
    measure = limit.measure
    if measure.estimator is not Estimator.RATIO:
        return None, None
    if measure.has_floor:
        rows = {"": case.circuit_importance()}
    else:
        subjects = measure.subjects_in(case.data)
        rows = {one: case.series(measure, one).scale for one in subjects}
    shown = None
    for subject, values in rows.items():
        if values is None:
            continue
        shown = case.mean(values)
        if not studentised.measurable(shown):
            facts = {"subject": subject, "count": case.count} | shown.facts
            return shown, _abstain(Code.NO_SCALE, **facts)
    return shown, None


def _identical(case: Case, limit: Limit) -> bool:
    found = case.series(limit.measure, over=limit.over)
    if found.graded is None or found.graded_before is None or found.scale is None:
        return False
    same = np.array_equal(found.graded, found.graded_before)
    return bool(same and np.array_equal(found.values, found.scale))


def _saturated(case: Case, measure: Measure) -> float | None:
    """The base's mean probability of the answer, where a readout leaves no room to see a loss. It
    depends on the base alone."""
    if not measure.graded or not READOUTS[case.spec.readout].saturates:
        return None
    room = float(np.mean(-np.expm1(case.data.need(READOUT, role=BASE))))
    return None if room >= LEAST_ROOM else 1 - room


def _left_open(case: Case, limit: Limit, code: Code) -> tuple[Note, ...]:
    """What a pass cannot exclude: templates that were not met, and pairs that were not."""
    alpha, notes = case.levels.passing, []
    if case.templates > 1:
        missed = 1 - alpha ** (1 / case.templates)
        notes.append(Note("templates_unseen", {"templates": case.templates, "missed": missed}))
    bounded = code is Code.WITHIN and limit.measure.estimator is Estimator.RATIO
    if bounded and limit.guard == 0 and 0 < limit.maximum < GUARD:  # from there on it is kept
        fewest = guard.fewest_pairs(limit.maximum, GUARD, alpha)
        notes.append(Note("unguarded", {"guard": GUARD, "pairs": fewest, "count": case.count}))
    return tuple(notes)


# --- the rule --------------------------------------------------------------------------------


def can_be_judged(spec: GateSpec, limit: Limit, *, samples: Samples, seed: int = 0) -> bool:
    """Whether anything can be said of a sampled limit, as far as the base's behaviour tells: one
    that no checkpoint can fail is no member of the run's family (errors as `judge`)."""
    case, measure = Case.of(spec, samples, seed=seed, family=1), limit.measure
    more = bool(samples.stages) and samples.count < samples.stages[-1]
    too_few = None if more else _too_few(case)
    return not any((too_few, _base_cannot(case, measure), _no_circuit(case, measure)))


def _stopped(decision: Decision, data: Samples) -> bool:
    """Whether something was left undecided while more units might have been drawn."""
    undecided = decision.outcome is Outcome.ABSTAIN and decision.estimate is not None
    return undecided and bool(data.stages) and data.count < data.stages[-1]


def is_located(judged: Decision | Verdict, data: Samples) -> bool:
    """Whether every member is read alone, to say where a loss is: for a fail, and for what the
    first units leave undecided. On all pairs of several stages it would cost more than the verdict,
    for parts too small to decide it."""
    if judged.outcome is Outcome.ABSTAIN:
        first = not data.stages or data.count == data.stages[0]
        return first and judged.estimate is not None
    return judged.outcome is Outcome.FAIL


def stands(spec: GateSpec, samples: Samples, verdict: Verdict, *, seed: int, family: int) -> bool:
    """Whether the verdict of one stage is the limit's: it is decided, or will be at no stage, or
    a limit that the file declares has failed on these units, and then no more are drawn. All of
    them are asked, so no verdict depends on which the run wants."""
    return not _may_be_decided(verdict) or _one_failed(_of_the_file(spec, samples, seed, family))


def goes_on(spec: GateSpec, samples: Samples, *, seed: int = 0, family: int = 1) -> bool:
    """Whether more units may decide a limit of the file, none of which has failed."""
    decisions = _of_the_file(spec, samples, seed, family)
    return not _one_failed(decisions) and any(map(_may_be_decided, decisions))


@lru_cache(maxsize=1)  # a file's limits come one after another, and all ask
def _of_the_file(spec: GateSpec, samples: Samples, seed: int, family: int) -> tuple[Decision, ...]:
    """What all its sampled limits come to, without evidence; a measure that failed has no decision,
    which is told as its limit's."""
    found = []
    for limit in spec.limits:
        if limit.measure.estimator is not Estimator.EXACT:
            with suppress(ForgetguardError):
                found.append(decide(_case(spec, samples, seed, family), limit))
    return tuple(found)


def _one_failed(decisions: Sequence[Decision]) -> bool:
    return any(one.outcome is Outcome.FAIL for one in decisions)


def _may_be_decided(judged: Decision | Verdict) -> bool:
    """Whether a limit that was judged at one stage is judged at the next. Not where it left the
    run's family at the first (`can_be_judged`): it can then fail at none."""
    left = {*_BASE_CANNOT.values(), Code.NO_CIRCUIT}
    return judged.outcome is Outcome.ABSTAIN and judged.code not in left


def ruled(held: Bounds, maximum: float) -> Outcome:
    """The outcome that the bounds give."""
    if held.high <= maximum:
        return Outcome.PASS
    return Outcome.FAIL if held.corrected_low > maximum else Outcome.ABSTAIN


def _code(outcome: Outcome, held: Sequence[Bounds], maximum: float) -> Code:
    """Of a limit that came to `outcome` by all of `held`."""
    if outcome is Outcome.ABSTAIN and all(one.estimate.high <= maximum for one in held):
        return Code.GUARDED
    return _CODES[outcome]


def _function_first(case: Case, limit: Limit, decision: Decision) -> Decision:
    """The decision on patched members, unless the models compute the same function and it is parts
    that were renamed: then nothing is lost, whatever reads by name. A difference to another model
    is no number where parts of either could not be matched."""
    if not limit.measure.needs_circuit or decision.code not in {*_CODES.values(), Code.GUARDED}:
        return decision
    if limit.over:
        renamed = [
            role for role in (TUNED, limit.over) if same_function.is_renamed(case.data, role)
        ]
        if not renamed:
            return decision
        facts = decision.facts | {"roles": renamed}
        return replace(
            decision, outcome=Outcome.ABSTAIN, code=Code.RENAMED, facts=facts, detectable=None
        )
    found = same_function.apart(case.data, TUNED)
    if found is None or not found.equal:
        return decision
    facts = decision.facts | found.facts | {"matches": same_function.matches(case.data, TUNED)}
    return replace(
        decision,
        outcome=Outcome.PASS,
        code=Code.SAME_FUNCTION,
        facts=facts,
        notes=(),
        detectable=None,
    )


_CODES = {
    Outcome.PASS: Code.WITHIN,
    Outcome.FAIL: Code.BEYOND,
    Outcome.ABSTAIN: Code.UNDECIDED,
}


def _few_carry(case: Case, limit: Limit, decision: Decision) -> Decision:
    """The decision, unless it abstains for a number that few units carry."""
    if decision.outcome is not Outcome.ABSTAIN or limit.measure.estimator is not Estimator.MEAN:
        return decision
    shares = case.series(limit.measure, decision.subject, limit.over).shares
    if shares is None or effective(shares) >= FEWEST_EFFECTIVE:
        return decision
    facts = {"count": shares.size, "share": float(shares.max()), "effective": effective(shares)}
    facts = decision.facts | facts | {"least": FEWEST_EFFECTIVE}
    return replace(decision, code=Code.FEW_CARRY, facts=facts, detectable=None)


def _of_the_whole(case: Case, limit: Limit, found: Estimated) -> Decision:
    held = found.subjects[0].held
    outcome = ruled(held, limit.maximum)
    facts: dict[str, Any] = {"corrected_low": held.corrected_low}
    if found.scale is not None and found.scale.value < 0:
        facts["against"] = True
    if case.guard > 0:
        facts |= {"guard": case.guard, "guarded": held.guarded}
    undecided = outcome is Outcome.ABSTAIN
    wanted, shown = _wanted(held, limit.maximum) if undecided else None, None
    counted = False  # whether counts say what is seen: then a normal error says nothing better
    if limit.measure.estimator is Estimator.PROPORTION:
        series = case.series(limit.measure, over=limit.over)
        assert series.scale is not None
        before, now = series.scale != 0, series.values != 0
        facts |= {"before": float(before.mean()), "now": float(now.mean())}
        lost, won, pairs = accuracy.changed_sides(before, now)
        facts |= {"lost": lost, "won": won}
        counted = case.has_templates or pairs <= power.MOST_ENUMERATED
        shown = power.detectable_drop(
            lost, won, pairs, limit.maximum, case.levels.failing, templates=case.drawn
        )
        if undecided:
            wanted = power.pairs_to_decide_drop(
                before,
                now,
                limit.maximum,
                confidence=1 - case.levels.passing,
                fail_confidence=1 - case.levels.failing,
                clusters=case.clusters if case.has_templates else None,
            )
    if undecided:
        facts["wanted"] = wanted
    notes = _far_below(limit, found.subjects) + _cannot_fail(case, limit, facts)
    notes += _scores(case, limit, found.subjects)
    facts |= _sparse(case, limit, [held])
    return Decision(
        outcome,
        _code(outcome, [held], limit.maximum),
        facts,
        held.estimate,
        notes=notes,
        detectable=shown if counted else _detectable(case, limit, found.subjects[0], 1),
    )


def _of_every_subject(case: Case, limit: Limit, found: Estimated) -> Decision:
    judged = found.subjects
    shown = worst_first(judged, limit.over, limit.floor)
    floored = [one.over is Denominator.FLOOR for one in judged]
    if limit.measure.has_floor and limit.floor == 0 and all(floored):
        facts = {"subjects": [one.subject for one in judged], "count": case.count}
        return replace(_abstain(Code.NO_HEAD, **facts), subjects=shown)
    seen = [_detectable(case, limit, one, len(judged)) for one in judged]
    decided = _decided(case, limit, judged)
    return replace(
        decided,
        facts=decided.facts | _sparse(case, limit, [one.held for one in judged]),
        subjects=shown,
        notes=_alone(case, limit, judged)
        + _floor_notes(case, limit, judged)
        + _far_below(limit, judged)
        + _scores(case, limit, judged),
        # What is seen in whichever subject it happens.
        detectable=max((one for one in seen if one is not None), default=None),
    )


def _decided(case: Case, limit: Limit, judged: Sequence[SubjectBounds]) -> Decision:
    by_outcome: dict[Outcome, list[SubjectBounds]] = {outcome: [] for outcome in Outcome}
    for one in judged:
        by_outcome[ruled(one.held, limit.maximum)].append(one)
    outcome = next(one for one in (Outcome.FAIL, Outcome.ABSTAIN, Outcome.PASS) if by_outcome[one])
    chosen = by_outcome[outcome]  # largest first
    first = chosen[0]
    if outcome is Outcome.FAIL:
        first = foremost(chosen)
    elif outcome is Outcome.PASS:
        first = max(judged, key=lambda one: one.held.high)
    others = [one.subject for one in chosen if one is not first] * (outcome is not Outcome.PASS)
    facts: dict[str, Any] = {
        "corrected_low": first.held.corrected_low,
        "over": first.over.value,
        "floor": limit.floor,
        "of": len(judged),
        "others": others,
    }
    if first.scale is not None and first.scale.value < 0:
        facts["against"] = True
    if case.guard > 0:
        facts |= {"guard": case.guard, "guarded": first.held.guarded}
    if outcome is Outcome.ABSTAIN:
        wanted = [_wanted(one.held, limit.maximum) for one in chosen]
        known = [one for one in wanted if one is not None]
        facts["wanted"] = max(known) if len(known) == len(wanted) else None
    code = _code(outcome, [one.held for one in chosen], limit.maximum)
    return Decision(outcome, code, facts, first.held.estimate, first.subject)


def _scores(case: Case, limit: Limit, judged: Sequence[SubjectBounds]) -> tuple[Note, ...]:
    """Each subject's mean score before and now, with what it lost and won."""
    if limit.measure.estimator is not Estimator.SCORES:
        return ()
    notes = []
    for one in judged:
        found = case.series(limit.measure, one.subject, limit.over)
        assert found.scale is not None
        before, now = found.scale, found.values
        facts: dict[str, Any] = {
            "subject": one.subject,
            "before": float(before.mean()),
            "now": float(now.mean()),
            "lost": int((before > now).sum()),
            "won": int((before < now).sum()),
            "count": len(now),
        }
        if limit.measure.shows_scores:
            notes.append(Note("scores", facts))
        base, chance, most = _room(found)
        if not limit.over and most <= limit.maximum:
            facts = {"before": base, "chance": chance, "most": most}
            notes.append(Note("cannot_fail", facts | {"subject": one.subject}))
    return tuple(notes)


def _alone(case: Case, limit: Limit, judged: Sequence[SubjectBounds]) -> tuple[Note, ...]:
    """Which members are judged one by one, where not all of the circuit are."""
    names = [one for one in case.members if any(held.subject == one for held in judged)]
    if not limit.measure.has_floor or len(names) == len(case.members):
        return ()
    return (Note("judged_alone", {"subjects": names, "of": len(case.members)}),)


def _floor_notes(case: Case, limit: Limit, judged: Sequence[SubjectBounds]) -> tuple[Note, ...]:
    kinds = {one.subject: one.over for one in judged}
    notes = []
    for kind in (Denominator.FLOOR, Denominator.BETWEEN):
        names = [one for one in case.members if kinds.get(one) is kind]
        if names:
            facts = {"over": kind.value, "floor": limit.floor, "subjects": names}
            notes.append(Note("held_by_floor", facts))
    return tuple(notes)


def _cannot_fail(case: Case, limit: Limit, facts: dict[str, Any]) -> tuple[Note, ...]:
    """That the base has no more to lose, above chance, than the limit allows: then it is kept by
    whatever tuned does."""
    if "before" not in facts or limit.over:
        return ()
    chance = READOUTS[case.spec.readout].chance if limit.measure.has_chance else 0.0
    most = facts["before"] - chance
    if most > limit.maximum:
        return ()
    return (Note("cannot_fail", {"before": facts["before"], "chance": chance, "most": most}),)


def _far_below(limit: Limit, judged: Sequence[SubjectBounds]) -> tuple[Note, ...]:
    """That patching in tuned's members makes the base better by more than the limit would let it be
    worse: then something is odd, such as two checkpoints in each other's place."""
    if limit.over or not limit.measure.needs_circuit:
        return ()
    below = [one for one in judged if one.held.estimate.high < -limit.maximum]
    if not below:
        return ()
    least = min(below, key=lambda one: one.held.estimate.value)
    facts = {"subjects": [one.subject for one in below if one.subject], "least": least.subject}
    return (Note("far_below", facts | least.held.estimate.facts),)


def _wanted(held: Bounds, maximum: float) -> int | None:
    """How many units would decide; none where few of them carry the number."""
    if held.corrected_low == -math.inf:
        return None
    shown = replace(held.estimate, low=held.corrected_low, high=held.high)
    return power.pairs_to_decide(shown, maximum)


def _detectable(case: Case, limit: Limit, one: SubjectBounds, of: int) -> float | None:
    """The smallest true value that a limit on so many subjects fails with probability 0.80; None
    where there is no width to go by. Where the spread that is guessed for damage that is not there
    says more than damage that few pairs carry needs, the latter."""
    held, estimate = one.held, one.held.estimate
    if limit.measure.estimator is Estimator.SCORES:
        return _detectable_score(case, limit, one, of)
    if estimate.low == estimate.high:
        return None
    return power.detectable(
        estimate.value,
        estimate.value - held.corrected_low,
        # A proportion has no error of its own: from its lower bound, taken as normal.
        held.error
        or (estimate.value - estimate.low)
        / studentised.student_quantile(case.levels.passing, math.inf),
        limit.maximum,
        freedom=held.freedom,
        growth=power.growth(case.count, case.drawn),
        most=_detectable_sparse(case, limit, held),
    )


def _detectable_score(case: Case, limit: Limit, one: SubjectBounds, of: int) -> float | None:
    """Of what is right or wrong: by the net loss, at its share of the level where flips are held
    too, or by flips where these have no chance. None of graded scores and over another model."""
    found = case.series(limit.measure, one.subject, limit.over)
    assert found.scale is not None
    before, now = found.scale, found.values
    if limit.over or not np.isin((before, now), (0.0, 1.0)).all():
        return None
    lost, won, count = accuracy.changed_sides(before != 0, now != 0)
    share = case.levels.failing / of
    if found.also is not None and found.chance == 0:  # flips alone, whatever was won
        won = 0
    elif found.also is not None:
        share /= 2
    templates = case.drawn if case.by_template(limit.measure) else math.inf
    return power.detectable_drop(lost, won, count, limit.maximum, share, templates=templates)


def _sparse(case: Case, limit: Limit, held: Sequence[Bounds]) -> dict[str, float]:
    """What is detectable even of damage that a few pairs carry, whichever subject it happens to;
    nothing where not even the loss of all would be seen."""
    found = [_detectable_sparse(case, limit, one) for one in held]
    known = [one for one in found if one is not None]
    return {"detectable_sparse": max(known)} if len(known) == len(found) else {}


def _detectable_sparse(case: Case, limit: Limit, held: Bounds) -> float | None:
    """What is detectable even if every pair loses nothing or all; None where a pair's loss has no
    bound."""
    of_pairs = limit.measure.sampled is Sampled.PAIRS
    if limit.measure.estimator is not Estimator.RATIO or not of_pairs:
        return None
    return power.detectable_sparse(
        held.estimate.value - held.corrected_low,
        held.error,
        limit.maximum,
        pairs=case.count,
        # An answer that flips loses what the readout was, twice.
        loss=1.0 if limit.measure.needs_circuit else 2.0,
        unevenness=held.unevenness,
        freedom=held.freedom,
        templates=case.drawn,
    )
