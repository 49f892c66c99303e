"""The limit on every head of a circuit: what each head is held to, and which of them decides.
[light]

A head's DCV is its damage over its own importance. A faithful circuit also holds heads that are
worth little: their own ratio is noise, and a loss there is none of the capability's. So a head's
damage is held to the limit relative to max(|I_h|, floor * I_circuit). Which of the two applies is
decided on the point estimates |mean I_h| and floor * |mean I_circuit|; then it is one ratio of
means as everywhere. In a head of positive importance the held value is continuous there, and it
falls as the floor rises. A head of negative importance works against the capability: above the
floor it is held in both directions, for it may cease to, and it may do more harm. For a head below
the floor only harm counts, a lower readout: there a head against the capability may go.

Between the two lies a head that looks worth more than the floor while its importance cannot be told
from zero, or its own ratio has no finite interval. It is worth between the floor and the circuit:
it passes where its damage is within the limit relative to the floor, and fails where it is beyond
the limit relative to the whole circuit.

What a head is worth depends on the base alone, so a damaged checkpoint cannot hide behind the
floor; and new harm done by a head that was worth nothing is held to it. With `floor: 0` a head is
held by its plain DCV; where its importance cannot be told from zero, by its damage as a share of
the whole circuit's importance.

"Every head is within the limit" is an intersection-union claim, so each head's upper bound stands
at the passing level itself; to fail, the heads share the failing level (max-T).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetguard.anatomy.members import Member
from forgetguard.gate import power, ruling, studentised, wording
from forgetguard.gate.case import Case, Held
from forgetguard.gate.measurement import FloatArray
from forgetguard.gate.ruling import Decision
from forgetguard.gate.verdict import Estimate, HeadEvidence, Outcome


class Denominator(enum.Enum):
    """What a head's damage is held relative to."""

    ITSELF = "its own importance"
    FLOOR = "the floor's share of the circuit's importance"
    BETWEEN = "something between the floor's share and the circuit's importance"


@dataclass(frozen=True, slots=True)
class JudgedHead:
    """One head. `held` is what is compared with the limit; `over` says by which denominator. `dcv`
    is the plain ratio, None where the importance cannot be told from 0; `worth` is |mean I_h| over
    |mean I_circuit|. `own` is its own damage over the denominator of `held` and in the direction of
    its value, `plain_own` over that of `dcv`."""

    head: Member
    importance: Estimate
    worth: float
    over: Denominator
    held: Held
    dcv: Estimate | None
    own: Estimate | None
    plain_own: Estimate | None


def judged_heads(case: Case) -> list[JudgedHead]:
    """Every head of the circuit, largest held value first.

    Raises:
        MeasurementError: something was not measured.
    """
    damage, importance = case.head_arrays()
    circuit = case.circuit_importance()
    shown = case.means(importance)
    worth = np.abs(importance.mean(axis=1)) / abs(float(circuit.mean()))
    floor, plain = case.limit.floor, _plain(case, damage, importance, shown)
    over = [_denominator(floor, *one) for one in zip(worth.tolist(), plain, strict=True)]
    itself = np.array([one is Denominator.ITSELF for one in over])
    share = (floor or 1.0) * np.sign(circuit.mean()) * circuit  # positive: harm counts
    scale = np.where(itself[:, None], importance, share)
    harmful = (scale.mean(axis=1) < 0) & (damage.mean(axis=1) > 0)
    rows = zip(
        case.heads,
        shown,
        worth.tolist(),
        over,
        case.vulnerabilities(damage, scale),
        plain,
        _own_damage(case, np.where(harmful[:, None], -scale, scale)),
        _own_damage(case, importance, [one is not None for one in plain]),
        strict=True,
    )
    found = [_with_bounds(JudgedHead(*row), floor) for row in rows]
    return sorted(found, key=lambda one: (-one.held.estimate.value, one.head))


def _plain(
    case: Case, damage: FloatArray, importance: FloatArray, shown: Sequence[Estimate]
) -> list[Estimate | None]:
    """The plain DCV of each head, None where it is not measurable."""
    found: list[Estimate | None] = [None] * len(shown)
    able = [place for place, one in enumerate(shown) if studentised.measurable(one)]
    if able:
        for place, one in zip(able, case.ratios(damage[able], importance[able]), strict=True):
            found[place] = one.estimate
    return found


def _denominator(floor: float, worth: float, plain: Estimate | None) -> Denominator:
    if worth < floor or (floor == 0 and plain is None):
        return Denominator.FLOOR
    known = plain is not None and (floor == 0 or math.isfinite(plain.high - plain.low))
    return Denominator.ITSELF if known else Denominator.BETWEEN


def _with_bounds(one: JudgedHead, floor: float) -> JudgedHead:
    """The head with what is compared with the limit.

    Between floor and circuit, what was measured is relative to the floor, and relative to the whole
    circuit it is `floor` times that: of the two, the lower of the lower bounds and the higher of
    the upper bounds.
    """
    held = one.held
    if one.over is Denominator.ITSELF:
        return one if one.importance.value < 0 else replace(one, dcv=held.estimate)
    if one.over is Denominator.FLOOR:
        return one
    estimate = replace(
        held.estimate,
        value=held.estimate.value * floor / one.worth,
        low=min(held.estimate.low, floor * held.estimate.low),
        high=max(held.estimate.high, floor * held.estimate.high),
    )
    return replace(one, held=Held(estimate, min(held.low, floor * held.low)))


def _own_damage(
    case: Case, scale: FloatArray, wanted: Sequence[bool] | None = None
) -> list[Estimate | None]:
    """Each head's own damage over `scale`; None where it is not wanted or was not measured, and for
    differences."""
    own = case.data.head_own_damage
    having = [
        place
        for place, head in enumerate(case.heads)
        if head in own and (wanted is None or wanted[place])
    ]
    found: list[Estimate | None] = [None] * len(case.heads)
    if case.limit.over or not having:
        return found
    damage = np.stack([own[case.heads[place]] for place in having])
    for place, one in zip(having, case.ratios(damage, scale[having]), strict=True):
        found[place] = one.estimate
    return found


# --- deciding --------------------------------------------------------------------------------


def judge_heads(case: Case) -> Decision:
    """Decide the limit; the circuit's importance must be measurable."""
    judged = judged_heads(case)
    heads = worst_first(case, judged)
    if case.limit.floor == 0 and all(one.over is Denominator.FLOOR for one in judged):
        reason = (
            f"no head of {_names(judged)} has an importance that {case.count} pairs can tell from "
            "0: give more pairs, or gate dcv.circuit"
        )
        return replace(ruling.abstain(reason), heads=heads)
    found = [ruling.detectable(case, one.held) for one in judged]
    return replace(
        _decided(case, judged),
        heads=heads,
        notes=_floor_notes(case, judged),
        # What is seen in whichever head it happens.
        detectable=max((one for one in found if one is not None), default=None),
    )


def _floor_notes(case: Case, judged: Sequence[JudgedHead]) -> tuple[str, ...]:
    floored, between = (
        wording.names(sorted(one.head for one in judged if one.over is kind))
        for kind in (Denominator.FLOOR, Denominator.BETWEEN)
    )
    share = wording.share(case.limit.floor)
    notes = []
    if floored and case.limit.floor == 0:
        notes.append(
            f"no DCV for {floored}: importance cannot be told from 0; the damage they do was held "
            "to the limit as a share of the circuit's importance"
        )
    elif floored:
        notes.append(
            f"worth less than {share} of the circuit, so held to the limit by their damage "
            f"relative to {share} of the circuit's importance: {floored}"
        )
    if between:
        notes.append(
            f"importance cannot be told from 0, so held by their damage relative to {share} of the "
            f"circuit's importance to pass, and to all of it to fail: {between}"
        )
    return tuple(notes)


def _decided(case: Case, judged: Sequence[JudgedHead]) -> Decision:
    maximum, count = case.limit.maximum, len(judged)
    outcomes = [ruling.ruled(one.held, maximum) for one in judged]
    beyond = [
        one for one, found in zip(judged, outcomes, strict=True) if found is Outcome.FAIL
    ]  # most first
    if beyond:
        first = beyond[0]
        also = f"; so are {_names(beyond[1:])}" if len(beyond) > 1 else ""
        reason = (
            f"{_measure(case, first)} {_interval(first)} on {case.count} pairs is beyond "
            f"{wording.limit(maximum)} ({_corrected(case, first, count)}){also}"
        )
        return Decision(Outcome.FAIL, first.held.estimate, reason, head=str(first.head))
    undecided = [
        one for one, found in zip(judged, outcomes, strict=True) if found is Outcome.ABSTAIN
    ]
    if not undecided:
        first = max(judged, key=lambda one: one.held.estimate.high)
        reason = (
            f"every head is within {wording.limit(maximum)} on {case.count} pairs; nearest to it "
            f"is {_measure(case, first)} {_interval(first)}"
        )
        return Decision(Outcome.PASS, first.held.estimate, reason, head=str(first.head))
    return _undecided(case, undecided, count)


def _undecided(case: Case, undecided: Sequence[JudgedHead], count: int) -> Decision:
    maximum, first = case.limit.maximum, undecided[0]
    wanted = [
        power.pairs_to_decide(replace(one.held.estimate, low=one.held.low), maximum)
        for one in undecided
    ]
    most = None if None in wanted else max(one for one in wanted if one is not None)
    others = f" (and {_names(undecided[1:])})" if len(undecided) > 1 else ""
    reason = (
        f"undecided at {case.count} pairs: {_measure(case, first)} {_interval(first)}, "
        f"{_corrected(case, first, count)}, holds {wording.limit(maximum)}{others}; "
        f"{wording.wanted(most)}"
    )
    return replace(ruling.abstain(reason, first.held.estimate), head=str(first.head))


def _corrected(case: Case, one: JudgedHead, count: int) -> str:
    return wording.corrected(one.held.low, case.family, count)


# --- evidence --------------------------------------------------------------------------------


def worst_first(case: Case, judged: Sequence[JudgedHead]) -> tuple[HeadEvidence, ...]:
    """Heads whose damage is established and mostly their own lead, for that is where to look: those
    after them in the model inherit it, and may read a larger DCV for it. The rest stand by what
    was held to the limit."""

    def place(one: JudgedHead) -> tuple[bool, float]:
        if one.own is None:
            return True, 0.0
        mostly_own = one.own.low > 0 and 2 * one.own.value >= one.held.estimate.value
        return not mostly_own, -one.own.value if mostly_own else 0.0

    return tuple(_evidence(case, one) for one in sorted(judged, key=place))


def _evidence(case: Case, one: JudgedHead) -> HeadEvidence:
    notes = [f"tuned minus {case.limit.over}"] if case.limit.over else []
    if one.dcv is None:
        notes.append("importance cannot be told from 0")
    elif one.over is Denominator.ITSELF and one.importance.value < 0:
        notes.append("works against the capability, so held in both directions")
    if one.over is Denominator.FLOOR:
        floor = case.limit.floor or 1.0
        notes.append(
            f"worth {wording.share(one.worth)} of the circuit; its damage over "
            f"{wording.share(floor)} of the circuit's importance is {_interval(one)}"
        )
    return HeadEvidence(str(one.head), one.importance, one.dcv, "; ".join(notes), one.plain_own)


def _measure(case: Case, one: JudgedHead) -> str:
    over = f" over the {case.limit.over}" if case.limit.over else ""
    if one.over is Denominator.ITSELF:
        return f"{wording.dcv(one.importance)} of {one.head}{over}"
    if one.over is Denominator.BETWEEN:
        return f"damage of {one.head}{over}, relative to what it may be worth,"
    part = f"{wording.share(case.limit.floor)} of " * (case.limit.floor > 0)
    return f"damage of {one.head}{over}, as a share of {part}the circuit's importance,"


def _interval(one: JudgedHead) -> str:
    return wording.interval(one.held.estimate)


def _names(judged: Sequence[JudgedHead]) -> str:
    return wording.names(one.head for one in judged)
