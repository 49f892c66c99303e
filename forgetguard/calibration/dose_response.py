"""Plants known doses in copies of the base and reads what the gate makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head, heads_of
from forgetguard.calibration.copies import describe_plain, temporary_copy
from forgetguard.calibration.detection import (
    ANY,
    Detected,
    Shares,
    by_limit,
    detected,
    moves,
    saturates,
    shares,
)
from forgetguard.calibration.mixture import mixed_head
from forgetguard.calibration.planting import MIXTURE, PLANTS, check_dose, edit, output_slice
from forgetguard.calibration.subjects import Progress, Subject, measured, prepare
from forgetguard.errors import SpecificationError
from forgetguard.gate import decision
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.measurement import Measurement
from forgetguard.gate.session import GateSession, shared_vocabulary
from forgetguard.gate.verdict import Estimate, Verdict

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import ModelPair

DOSES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
DRAWS = 40
_NO_LIMIT = 1e9


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
    vocabulary: int | None
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
        shared_vocabulary(pair),
        progress,
    )
    curves = [
        curve
        for subject in prepared.ready
        for head in heads or (_most_important(setting, subject),)
        for curve in _curves(setting, subject, head, plants)
    ]
    return Sensitivity(tuple(curves), prepared.refused, draws, seed)


def _most_important(setting: _Setting, subject: Subject) -> Head:
    heads = heads_of(subject.spec.heads)
    if not heads:
        raise SpecificationError(
            f"circuit {subject.spec.name} has no heads to plant damage in, only MLP layers: name "
            "heads with --heads"
        )
    importance = _mixtures(setting, subject, heads[0], (0.0,))[0.0].head_importance
    return max(heads, key=lambda head: (abs(float(importance[head].mean())), head))


# --- measuring ------------------------------------------------------------------------------------


def _curves(
    setting: _Setting, subject: Subject, head: Head, plants: Sequence[str]
) -> Iterable[Curve]:
    for plant in plants:
        mixed = setting.doses if plant == MIXTURE else (0.0,)
        found = _mixtures(setting, subject, head, mixed)
        if plant != MIXTURE:
            found |= _edits(setting, subject, head, plant)
        yield _curve(setting, subject, head, plant, found)


def _mixtures(
    setting: _Setting, subject: Subject, head: Head, doses: Sequence[float]
) -> dict[float, Measurement]:
    with setting.pair.base.open() as model:
        anatomy = locate(model)
        members = (*subject.spec.heads, *_everything_else(subject, anatomy.heads))
        others = {
            repr(dose): mixed_head(
                anatomy, subject.capability, members, head, dose, vocabulary=setting.vocabulary
            )
            for dose in doses
        }
        found = measured(
            anatomy,
            subject,
            others,
            vocabulary=setting.vocabulary,
            progress=partial(setting.report, f"{subject.spec.name}: mixing {head}"),
        )
    return {dose: found[repr(dose)] for dose in doses}


def _everything_else(subject: Subject, heads: Sequence[Head]) -> tuple[Head, ...]:
    """The other heads of the model, where a limit asks what all lose together."""
    if not any(limit.needs_all_heads for limit in subject.spec.limits):
        return ()
    return tuple(head for head in heads if head not in subject.spec.heads)


def _edits(setting: _Setting, subject: Subject, head: Head, plant: str) -> dict[float, Measurement]:
    """Real checkpoints, each written, gated and deleted."""
    from forgetguard.checkpoints.placement import ModelPair

    base, options = setting.pair.base.spec, setting.pair.options
    with setting.pair.base.open() as model:
        where = output_slice(locate(model), head, describe_plain(base, options))
    setting.pair.close()
    doses = [dose for dose in setting.doses if dose > 0]
    found = {}
    for number, dose in enumerate(doses):
        setting.report(f"{subject.spec.name}: {plant} in {head}", number, len(doses))
        with temporary_copy(base, edit(where, plant, dose, setting.seed), options) as copy:
            session = GateSession(
                ModelPair({"base": base, "tuned": copy}, options),
                [subject.spec],
                seed=setting.seed,
                family=setting.family,
            )
            found[dose] = session.measurement(subject.spec)
            session.close()
    return found


# --- reading --------------------------------------------------------------------------------------


def _curve(
    setting: _Setting,
    subject: Subject,
    head: Head,
    plant: str,
    found: Mapping[float, Measurement],
) -> Curve:
    spec, total = subject.spec, len(found) * setting.draws
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
        subject.n_pairs,
        points,
        {
            key: detected(doses, by_limit(by_point, key), [one.values.get(key) for one in points])
            for key in (*keys, ANY)
        },
        {"circuit DCV": saturates(doses, circuit), "readout": saturates(doses, readouts)},
        moves(doses, [point.accuracy for point in points], 0.5 / subject.n_pairs),
    )


def _report_draw(setting: _Setting, what: str, before: int, total: int, draw: int) -> None:
    setting.report(what, before + draw, total)


def _point(
    setting: _Setting,
    spec: GateSpec,
    head: Head,
    dose: float,
    data: Measurement,
    report: partial[None],
) -> Point:
    def judged(limit: Limit) -> Verdict:
        return decision.judge(spec, limit, data, seed=setting.seed, family=setting.family)

    whole = judged(Limit("dcv.circuit", _NO_LIMIT))
    heads = {one.head: one for one in judged(Limit("dcv.head", _NO_LIMIT)).worst_heads}
    planted = heads.get(str(head))
    others = {name: one.dcv for name, one in heads.items() if name != str(head)}
    ranked = [(name, dcv) for name, dcv in others.items() if dcv is not None]
    verdicts = {limit.key: judged(limit) for limit in spec.limits}
    return Point(
        dose,
        whole.estimate,
        None if planted is None else planted.dcv,
        max(ranked, key=lambda one: one[1].value, default=None),
        None if planted is None else planted.own,
        float(data.tuned_readout.mean()),
        float(data.tuned_correct.mean()),
        {
            key: None if one.estimate is None else one.estimate.value
            for key, one in verdicts.items()
        },
        shares(spec, data, setting.draws, seed=setting.seed, family=setting.family, report=report),
        {key: one.detectable for key, one in verdicts.items()},
    )
