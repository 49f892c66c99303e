"""Plants known doses in copies of the base and reads what the gate makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from examples.studies.sensitivity.detection import (
    ANY,
    Detected,
    Shares,
    by_limit,
    detected,
    moves,
    saturates,
    shares,
)
from examples.studies.sensitivity.mixture import mixed_head
from examples.studies.sensitivity.planting import MIXTURE, PLANTS, check_dose, edit, output_slice
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head, heads_of
from forgetguard.calibration.copies import describe_plain, temporary_copy
from forgetguard.calibration.prepared import Prepared, measured, prepare
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import SpecificationError
from forgetguard.gate import rule
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.estimate import Case
from forgetguard.gate.runner import OtherReading, capability_of, patched_members
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.samples import BASE, CORRECT, IMPORTANCE, READOUT, Samples

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import ModelPair

DOSES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
DRAWS = 40


@dataclass(frozen=True, slots=True)
class Point:
    """One dose.

    circuit, planted, own: DCV of the circuit and of the planted head, and the part of it that the
        head does itself; None where there is none (the head is outside the circuit, say). other:
        the other head of the circuit with the largest DCV. readout: of the planted model, mean, in
        the readout's units. accuracy: of it, 0 to 1.
    values: what each limit bounds. shares: each limit's outcomes over draws of pairs. detectable:
        what each verdict says it could have seen.
    """

    dose: float
    circuit: Estimate | None
    planted: Estimate | None
    other: tuple[str, Estimate] | None
    own: Estimate | None
    readout: float
    accuracy: float
    values: Mapping[str, float | None]
    shares: Mapping[str, Shares]
    detectable: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """The dose-response of one plant in one head, and what follows from it.

    detected: by limit, and for `ANY` of them. saturated: from which dose on the circuit's DCV, and
        the readout, say nothing more. first_error: the smallest dose at which the accuracy differs.
    """

    spec: GateSpec
    plant: str
    head: Head
    n_pairs: int
    points: tuple[Point, ...]
    detected: Mapping[str, Detected]
    saturated: Mapping[str, float | None]
    first_error: float | None

    @property
    def doses(self) -> tuple[float, ...]:
        return tuple(point.dose for point in self.points)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """All curves, circuit by circuit; `refused`: circuits that were left out, and why."""

    curves: tuple[Curve, ...]
    refused: tuple[str, ...]
    draws: int
    seed: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    pair: ModelPair
    doses: tuple[float, ...]
    draws: int
    seed: int
    family: int
    progress: Progress | None

    def report(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)


def sensitivity(
    pair: ModelPair,
    circuits: Sequence[GateSpec],
    *,
    plants: Sequence[str] = (MIXTURE,),
    doses: Sequence[float] = DOSES,
    heads: Sequence[Head] = (),
    draws: int = DRAWS,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Plant every dose of every plant in each of `heads`, circuit by circuit.

    Args:
        pair: its base is planted in; a tuned model is not looked at.
        plants: names of `PLANTS`.
        doses: from 0 to 1; 0 is added, for what is undamaged is where every curve begins.
        heads: by default each circuit's most important one.
        draws: of pairs, at every dose.
        seed: of all that is drawn.

    Raises:
        SpecificationError: an unknown plant, or a dose that is not from 0 to 1.
        ForgetguardError: the base cannot be measured, or can do none of the capabilities.
    """
    unknown = [plant for plant in plants if plant not in PLANTS]
    if unknown:
        raise SpecificationError(f"unknown plant {unknown[0]!r}; there are {', '.join(PLANTS)}")
    for dose in doses:
        check_dose(dose)
    if set(plants) - {MIXTURE}:
        describe_plain(pair.base.spec, pair.options)
    prepared = prepare(pair, circuits, cache=cache, progress=progress)
    setting = _Setting(
        pair,
        tuple(sorted({0.0, *doses})),
        draws,
        seed,
        sum(len(one.spec.limits) for one in prepared.ready),
        progress,
    )
    curves = [
        curve
        for one in prepared.ready
        for head in heads or (_most_important(setting, one),)
        for curve in _curves(setting, one, head, plants)
    ]
    return Sensitivity(tuple(curves), prepared.refused, draws, seed)


def _most_important(setting: _Setting, prepared: Prepared) -> Head:
    heads = heads_of(prepared.spec.members)
    if not heads:
        raise SpecificationError(
            f"circuit {prepared.spec.name} has no heads to plant damage in, only MLP layers: name "
            "heads with --heads"
        )
    found = _mixtures(setting, prepared, heads[0], (0.0,))[0.0]

    def worth(head: Head) -> float:
        return abs(float(found.need(IMPORTANCE, str(head), BASE).mean()))

    return max(heads, key=lambda head: (worth(head), head))


# --- measuring ------------------------------------------------------------------------------------


def _curves(
    setting: _Setting, prepared: Prepared, head: Head, plants: Sequence[str]
) -> Iterable[Curve]:
    for plant in plants:
        mixed = setting.doses if plant == MIXTURE else (0.0,)
        found = _mixtures(setting, prepared, head, mixed)
        if plant != MIXTURE:
            found |= _edits(setting, prepared, head, plant)
        yield _curve(setting, prepared, head, plant, found)


def _mixtures(
    setting: _Setting, prepared: Prepared, head: Head, doses: Sequence[float]
) -> dict[float, Samples]:
    with setting.pair.base.open() as model:
        anatomy = locate(model)
        spec, capability = prepared.spec, capability_of(prepared.part)
        more = patched_members(spec, anatomy.heads) - {*spec.members}
        members = (*spec.members, *sorted(more))
        others = {
            repr(dose): OtherReading(mixed_head(anatomy, capability, members, head, dose))
            for dose in doses
        }
        found = measured(
            anatomy,
            prepared,
            others,
            progress=partial(setting.report, f"{prepared.spec.name}: mixing {head}"),
            located=True,
        )
    return {dose: found[repr(dose)] for dose in doses}


def _edits(setting: _Setting, prepared: Prepared, head: Head, plant: str) -> dict[float, Samples]:
    """Real checkpoints, each written, gated and deleted."""
    from forgetguard.checkpoints.placement import ModelPair

    base, options = setting.pair.base.spec, setting.pair.options
    with setting.pair.base.open() as model:
        where = output_slice(locate(model), head, describe_plain(base, options))
    setting.pair.close()
    doses = [dose for dose in setting.doses if dose > 0]
    found = {}
    for number, dose in enumerate(doses):
        setting.report(f"{prepared.spec.name}: {plant} in {head}", number, len(doses))
        with temporary_copy(base, edit(where, plant, dose, setting.seed), options) as copy:
            session = GateSession(
                ModelPair({"base": base, "tuned": copy}, options),
                [prepared.spec],
                seed=setting.seed,
                family=setting.family,
            )
            found[dose] = session.measurement(prepared.spec)
            session.close()
    return found


# --- reading --------------------------------------------------------------------------------------


def _curve(
    setting: _Setting,
    prepared: Prepared,
    head: Head,
    plant: str,
    found: Mapping[float, Samples],
) -> Curve:
    spec, total = prepared.spec, len(found) * setting.draws
    points = tuple(
        _point(
            setting,
            spec,
            head,
            dose,
            found[dose],
            partial(
                _report_draw, setting, f"{spec.name}: draws of pairs", number * setting.draws, total
            ),
        )
        for number, dose in enumerate(sorted(found))
    )
    doses = [point.dose for point in points]
    by_point = [point.shares for point in points]
    keys = [limit.key for limit in spec.limits]
    readouts = [point.readout for point in points]
    circuit = [0.0 if point.circuit is None else point.circuit.value for point in points]
    return Curve(
        spec,
        plant,
        head,
        prepared.n_units,
        points,
        {
            key: detected(doses, by_limit(by_point, key), [one.values.get(key) for one in points])
            for key in (*keys, ANY)
        },
        {"circuit DCV": saturates(doses, circuit), "readout": saturates(doses, readouts)},
        moves(doses, [point.accuracy for point in points], 0.5 / prepared.n_units),
    )


def _report_draw(setting: _Setting, what: str, before: int, total: int, draw: int) -> None:
    setting.report(what, before + draw, total)


def _point(
    setting: _Setting,
    spec: GateSpec,
    head: Head,
    dose: float,
    data: Samples,
    report: partial[None],
) -> Point:
    case = Case.of(spec, data, seed=setting.seed, family=setting.family)
    whole = rule.estimate(case, Limit("dcv.circuit", 0.0)).subjects
    heads = {one.subject: one for one in rule.estimate(case, Limit("dcv.head", 0.0)).subjects}
    planted = heads.get(str(head))
    others = {name: one.value for name, one in heads.items() if name != str(head)}
    ranked = [(name, dcv) for name, dcv in others.items() if dcv is not None]
    decisions = {limit.key: rule.decide(case, limit) for limit in spec.limits}
    return Point(
        dose,
        whole[0].held.estimate if whole else None,
        None if planted is None else planted.value,
        max(ranked, key=lambda one: one[1].value, default=None),
        None if planted is None else planted.plain_own,
        float(data.need(READOUT).mean()),
        float(data.need(CORRECT).mean()),
        {
            key: None if one.estimate is None else one.estimate.value
            for key, one in decisions.items()
        },
        shares(spec, data, setting.draws, seed=setting.seed, family=setting.family, report=report),
        {key: one.detectable for key, one in decisions.items()},
    )
