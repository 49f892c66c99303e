"""The limit on every subject (member of a circuit, layer, matrix): what each is held to, and which
of them decides.

A head's DCV is its damage over its own importance. A faithful circuit also holds heads that are
worth little: their own ratio is noise, and a loss there is none of the capability's. So, with a
floor, a head's damage is held to the limit relative to max(|I_h|, floor * I_circuit). Which of the
two applies is decided on the point estimates |mean I_h| and floor * |mean I_circuit|; then it is
one ratio of means as everywhere. In a head of positive importance the held value is continuous
there, and it falls as the floor rises. A head of negative importance works against the capability:
above the floor it is held in both directions, for it may cease to, and it may do more harm. For a
head below the floor only harm counts, a lower readout: there a head against the capability may go.

Between the two lies a head that looks worth more than the floor while its importance cannot be told
from zero, or its own ratio has no finite interval. It is worth between the floor and the circuit:
it passes where its damage is within the limit relative to the floor, and fails where it is beyond
the limit relative to the whole circuit.

What a head is worth depends on the base alone, so a damaged checkpoint cannot hide behind the
floor; and new harm done by a head that was worth nothing is held to it. With `floor: 0` a head is
held by its plain DCV; where its importance cannot be told from zero, by its damage as a share of
the whole circuit's importance.

"Every subject is within the limit" is an intersection-union claim, so each one's upper bound stands
at the passing level itself; to fail, they share the failing level (max-T).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import studentised
from forgetguard.gate.estimate import Bounds, Case
from forgetguard.gate.verdict import Estimate, SubjectEvidence, mostly_own
from forgetguard.measures.measure import Measure
from forgetguard.measures.samples import OWN_DAMAGE, FloatArray, Note


class Denominator(enum.Enum):
    """What a subject's values are held relative to."""

    ITSELF = "itself"  # its own scale, an importance; or nothing, where it is no ratio
    FLOOR = "floor"  # the floor's share of the circuit's importance
    BETWEEN = "between"  # something between the floor's share and the circuit's importance


@dataclass(frozen=True, slots=True)
class SubjectBounds:
    """One subject. `held` is what is compared with the limit; `over` says by which denominator.
    `value` is the plain ratio, None where it cannot be measured; `scale` is its importance, and
    `worth` that as a share of the circuit's. `own` is its own damage over the denominator of `held`
    and in the direction of its value, `plain_own` over that of `value`."""

    subject: str
    held: Bounds
    over: Denominator = Denominator.ITSELF
    value: Estimate | None = None
    scale: Estimate | None = None
    worth: float = 1.0
    own: Estimate | None = None
    plain_own: Estimate | None = None


def subject_bounds(case: Case, measure: Measure, over: str, floor: float) -> list[SubjectBounds]:
    """Every subject of a measure, largest held value first. For one with a floor the circuit's
    importance must be measurable.

    Raises:
        MeasurementError: something was not measured, or not of the same subjects.
        SpecificationError: there is no subject.
    """
    if measure.has_floor:
        return _by_floor(case, measure, over, floor)
    subjects = measure.subjects_in(case.data)
    if not subjects:
        raise SpecificationError(f"{case.spec.where(1)}: {measure.key} has no subject to bound")
    gone = {*measure.subjects_in(case.data, over)} - {*subjects} if over else set()
    if gone:
        raise MeasurementError(
            f"{measure.key} has no number of {', '.join(sorted(gone))} in the tuned model, which "
            f"it has in the {over}"
        )
    held = case.bounds(measure, subjects, over)
    found = [
        SubjectBounds(name, one, value=one.estimate)
        for name, one in zip(subjects, held, strict=True)
    ]
    return sorted(found, key=lambda one: -one.held.estimate.value)


def _by_floor(case: Case, measure: Measure, over: str, floor: float) -> list[SubjectBounds]:
    circuit = case.circuit_importance()
    if not case.members or circuit is None:
        raise SpecificationError(
            f"{case.spec.where(case.spec.circuit_line)}: limits.{measure.key} needs the circuit's "
            "heads: name them in circuit: [...]"
        )
    series = [case.series(measure, member, over) for member in case.members]
    damage = np.stack([one.values for one in series])
    importance = np.stack([one.scale for one in series if one.scale is not None])
    shown = case.means(importance)
    worth = np.abs(importance.mean(axis=1)) / abs(float(circuit.mean()))
    plain = _plain(case, damage, importance, shown)
    kinds = [_denominator(floor, *one) for one in zip(worth.tolist(), plain, strict=True)]
    itself = np.array([one is Denominator.ITSELF for one in kinds])
    share = (floor or 1.0) * np.sign(circuit.mean()) * circuit  # positive: harm counts
    scale = np.where(itself[:, None], importance, share)
    harmful = (scale.mean(axis=1) < 0) & (damage.mean(axis=1) > 0)
    # A head can lose its own importance, however even that of the circuit is.
    squares, own = (importance**2).mean(axis=1), np.abs(importance).mean(axis=1)
    uneven = (squares / np.maximum(own * np.abs(scale.mean(axis=1)), 1e-300)).tolist()
    held = [
        replace(one, unevenness=max(one.unevenness, mine - 1))
        for one, mine in zip(case.vulnerabilities(damage, scale), uneven, strict=True)
    ]
    rows = zip(
        case.members,
        held,
        kinds,
        plain,
        shown,
        worth.tolist(),
        _own_damage(case, over, np.where(harmful[:, None], -scale, scale)),
        _own_damage(case, over, importance, [one is not None for one in plain]),
        strict=True,
    )
    found = [_with_bounds(SubjectBounds(*row), floor) for row in rows]
    return sorted(found, key=lambda one: -one.held.estimate.value)


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


def _with_bounds(one: SubjectBounds, floor: float) -> SubjectBounds:
    """The head with what is compared with the limit.

    Between floor and circuit, what was measured is relative to the floor, and relative to the whole
    circuit it is `floor` times that: of the two, the lower of the lower bounds and the higher of
    the upper bounds.
    """
    held = one.held
    if one.over is Denominator.ITSELF:
        works_against = one.scale is not None and one.scale.value < 0
        return one if works_against else replace(one, value=held.estimate)
    if one.over is Denominator.FLOOR:
        return one
    estimate = replace(
        held.estimate,
        value=held.estimate.value * floor / one.worth,
        low=min(held.estimate.low, floor * held.estimate.low),
        high=max(held.estimate.high, floor * held.estimate.high),
    )
    low = min(held.corrected_low, floor * held.corrected_low)
    guarded = max(held.guarded, floor * held.guarded)
    return replace(one, held=Bounds(estimate, low, guarded))


def _own_damage(
    case: Case, over: str, scale: FloatArray, wanted: Sequence[bool] | None = None
) -> list[Estimate | None]:
    """Each head's own damage over `scale`; None where it is not wanted or was not measured, and for
    differences."""
    own = [case.data.get(OWN_DAMAGE, member) for member in case.members]
    having = [
        place
        for place, values in enumerate(own)
        if values is not None and (wanted is None or wanted[place])
    ]
    found: list[Estimate | None] = [None] * len(own)
    if over or not having:
        return found
    damage = np.stack([values for place in having if (values := own[place]) is not None])
    for place, one in zip(having, case.ratios(damage, scale[having]), strict=True):
        found[place] = one.estimate
    return found


# --- evidence --------------------------------------------------------------------------------


def worst_first(
    judged: Sequence[SubjectBounds], over: str, floor: float
) -> tuple[SubjectEvidence, ...]:
    """Heads whose damage is established and mostly their own lead, for that is where to look: those
    after them in the model inherit it, and may read a larger DCV for it. The rest stand by what
    was held to the limit."""
    return tuple(_evidence(one, over, floor) for one in sorted(judged, key=_own_first))


def foremost(failing: Sequence[SubjectBounds]) -> SubjectBounds:
    """The one of several beyond a limit that a verdict names: as in the evidence, the one with most
    damage that is mostly its own; where none is, the one that is beyond most surely."""
    return min(failing, key=lambda one: (*_own_first(one), -one.held.corrected_low))


def _own_first(one: SubjectBounds) -> tuple[bool, float]:
    if one.own is None or not mostly_own(one.own, one.held.estimate):
        return True, 0.0
    return False, -one.own.value


def _evidence(one: SubjectBounds, over: str, floor: float) -> SubjectEvidence:
    notes = [Note("over", {"role": over})] if over else []
    if one.value is None:
        notes.append(Note("no_importance"))
    elif one.over is Denominator.ITSELF and one.scale is not None and one.scale.value < 0:
        notes.append(Note("works_against"))
    if one.over is Denominator.FLOOR:
        held = one.held.estimate
        facts = {"worth": one.worth, "floor": floor or 1.0}
        notes.append(Note("floored", facts | held.facts))
    return SubjectEvidence(one.subject, one.value, one.scale, one.plain_own, tuple(notes))
