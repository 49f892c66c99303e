"""Reads models for the measures of a gate file: each model is opened by the caller, once, and what
several measures need of it is run once.

Of every other model than the base: the contributions of all members that are to be patched, the
behaviour on the prompt pairs, and what each measure's own `read` returns. Of the base, with all of
that at hand: one wavefront a batch over all sets of members that measures name, and what each
measure's own `compare` returns. What measures take of the prompts as they are (`watch`) is taken in
the pass that this makes anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head, Member, heads_of
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.errors import ForgetguardError, MeasurementError
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.stages import Part
from forgetguard.measures import registry
from forgetguard.measures.behaviour import Behaviour, behaviour, counterfactual_readout
from forgetguard.measures.interventions import Progress, Saved
from forgetguard.measures.measure import Estimator, Measure, Opened, Subjects
from forgetguard.measures.own_damage import Detached
from forgetguard.measures.prompt_pass import Reader, run
from forgetguard.measures.samples import (
    BASE,
    CORRECT,
    COUNTERFACTUAL,
    DAMAGE,
    IMPORTANCE,
    OWN_DAMAGE,
    READOUT,
    SAID,
    TOP1,
    WHOLE,
    FloatArray,
    Key,
    Samples,
)
from forgetguard.measures.vulnerability import (
    ForeignHeads,
    Patched,
    capture_heads,
    keep_behaviour,
    kept_behaviour,
    kept_readout,
    patched,
)

T = TypeVar("T")
# What is read beside every circuit, for it is what a circuit is for.
OF_EVERY_CIRCUIT = ("dcv.head", "dcv.circuit")


def measures_of(spec: GateSpec) -> tuple[Measure, ...]:
    """The measures of a gate file: those of its limits, and those that stand beside them."""
    found = {key: registry.find(key) for key in (OF_EVERY_CIRCUIT if spec.has_circuit else ())}
    found |= {limit.measure.key: limit.measure for limit in spec.limits}
    return tuple(found.values())


def reading(spec: GateSpec) -> list[Measure]:
    """Those that read models themselves."""
    return [one for one in measures_of(spec) if one.compare is not None]


def reads_pairs(spec: GateSpec) -> bool:
    """Whether the behaviour on prompt pairs is needed."""
    return spec.has_pairs and any(one.needs_pairs for one in measures_of(spec))


def sets_of(
    spec: GateSpec, measures: Iterable[Measure], heads: Sequence[Member]
) -> dict[str, tuple[Member, ...]]:
    """The sets of members that measures have patched, by subject; `heads`: all of the model.

    Raises:
        MeasurementError: two measures call different sets by one name.
    """
    found: dict[str, tuple[Member, ...]] = {}
    for one in measures if spec.members else ():
        if one.patched is None:
            continue
        asked = spec.judged_alone if one.subjects is Subjects.MEMBERS else spec.members
        named = guarded(one, partial(one.patched, asked, heads))
        taken = sorted(name for name in named if {*found.get(name, named[name])} != {*named[name]})
        if taken:
            raise MeasurementError(
                f"measure {one.key!r} of {one.source} patches other members as {taken[0]!r} "
                "than another measure of this file: one of the two must rename them"
            )
        found |= named
    return found


def patched_members(spec: GateSpec, heads: Sequence[Member]) -> set[Member]:
    """All members of these sets."""
    return {one for chosen in sets_of(spec, measures_of(spec), heads).values() for one in chosen}


@dataclass(frozen=True, slots=True, eq=False)
class OtherReading:
    """What was read of another model than the base on one part.

    heads: what crosses to the base for patching, with the behaviour; None where no measure needs
    pairs. kept: what each measure's `read` returned. failed: what it raised instead.
    """

    heads: ForeignHeads | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    failed: Mapping[str, ForgetguardError] = field(default_factory=dict)


def read_other(
    anatomy: Anatomy,
    spec: GateSpec,
    part: Part,
    role: str,
    *,
    also: Sequence[Member] = (),
    matched: Mapping[Head, Head] | None = None,
) -> OtherReading:
    """Read an open model that is not the base.

    Args:
        also: further members that will be patched.
        matched: where heads were found to have moved, the one that does the work of each; then
            the counterfactual prompts are read too, to see whether the function is the base's.

    Raises:
        AnatomyError: a member is not in the model.
        MeasurementError: logits are not finite.
    """
    opened = _opened(role, anatomy, part)
    readers = _readers(opened, spec, [{}])
    heads = None
    if part.pairs is not None and reads_pairs(spec):
        members = sorted(patched_members(spec, anatomy.heads) | {*also})
        heads = capture_heads(anatomy, part.pairs, members, matched=matched, readers=readers)
        if matched:
            values = counterfactual_readout(anatomy, part.pairs)
            heads = replace(heads, counterfactual=values)
    elif readers:
        run(anatomy, opened.batches(), readers)
    kept, failed = {}, {}
    for measure in reading(spec):
        if measure.read is not None:
            read = partial(measure.read, opened)
        elif measure.watch is not None:
            read = partial(opened.seen, measure.watch, None)
        else:
            continue
        try:
            kept[measure.key] = guarded(measure, read)
        except ForgetguardError as error:
            failed[measure.key] = error
    return OtherReading(heads, kept, failed)


def read_base(
    anatomy: Anatomy,
    spec: GateSpec,
    part: Part,
    others: Mapping[str, OtherReading],
    *,
    budget: int | None = None,
    progress: Progress | None = None,
    saved: Saved | None = None,
) -> tuple[Samples, dict[str, ForgetguardError]]:
    """Read the open base against the other models, by role; also which measures failed, by key.

    `saved`: keeps what depends on this base and the prompts alone (gate/kept.py).

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    arrays: dict[Key, FloatArray] = {}
    opened = _opened(BASE, anatomy, part, saved)
    readers = _readers(opened, spec, [one.kept for one in others.values()])
    if part.pairs is not None and reads_pairs(spec):
        foreign = _foreign(others)
        known = None
        if spec.members:
            sets = sets_of(spec, measures_of(spec), anatomy.heads)
            found = patched(
                anatomy,
                part.pairs,
                list(sets.values()),
                foreign,
                site=spec.site,
                budget=budget,
                progress=progress,
                saved=saved,
                readers=readers,
            )
            arrays |= _of_patched(found, sets, foreign)
            base, known = found.base, found.counterfactual
        else:
            base = behaviour(anatomy, part.pairs, readers)
        keep_behaviour(part.pairs, saved, base)
        known = kept_readout(anatomy, part.pairs, saved, base, known)
        arrays |= _of_behaviour(base, known, BASE)
        for role, heads in foreign.items():
            arrays |= _of_behaviour(heads.behaviour, heads.counterfactual, role)
    elif readers:
        run(anatomy, opened.batches(), readers)
    samples = Samples(part.units, arrays, dropped=part.dropped)
    return _compared(opened, spec, others, samples)


def _opened(role: str, anatomy: Anatomy, part: Part, saved: Saved | None = None) -> Opened:
    return Opened(
        role,
        anatomy,
        part.passages,
        part.pairs,
        part.vocabulary,
        documents=part.documents,
        saved=saved,
        new_task=part.new_task,
    )


def _readers(
    opened: Opened, spec: GateSpec, kept: Iterable[Mapping[str, Any]]
) -> list[Reader[Any]]:
    """What the measures of a file take of the prompts in one pass, each once; `kept`: what each of
    the other models was read for, by measure, or nothing for one of these itself."""
    found: dict[int, Reader[Any]] = {}
    for one in kept:
        for measure in reading(spec):
            if measure.watch is not None and (opened.role != BASE or measure.key in one):
                # What a measure raises here, it raises again when it asks for what was seen.
                with suppress(Exception):
                    reader = opened.once(measure.watch, one.get(measure.key))
                    found[id(reader)] = reader
    return list(found.values())


def read_behaviour(anatomy: Anatomy, part: Part, saved: Saved | None) -> Samples:
    """What the open base does by itself, so far as a base must have a capability: as an earlier run
    of this base kept it, or read now.

    Raises:
        MeasurementError: logits are not finite.
    """
    arrays: dict[Key, FloatArray] = {}
    if part.pairs is not None:
        found = kept_behaviour(anatomy, part.pairs, saved)
        arrays = _of_behaviour(found, kept_readout(anatomy, part.pairs, saved, found), BASE)
    return Samples(part.units, arrays, dropped=part.dropped)


def read_members(
    anatomy: Anatomy,
    spec: GateSpec,
    part: Part,
    others: Mapping[str, OtherReading],
    *,
    attention: Mapping[str, Mapping[int, Detached]] | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
    saved: Saved | None = None,
) -> dict[Key, FloatArray]:
    """What says where in a circuit a loss is, beside what `read_base` read: every other member
    alone, and every head's own damage, where the other models' `attention` is given, by role and
    layer (errors as `read_base`)."""
    foreign = _foreign(others)
    known = sets_of(spec, measures_of(spec), anatomy.heads)
    sets = {str(one): (one,) for one in spec.members if str(one) not in known}
    found = patched(
        anatomy,
        capability_of(part),
        list(sets.values()),
        foreign,
        own=heads_of(spec.members),
        attention=attention,
        site=spec.site,
        budget=budget,
        progress=progress,
        saved=saved,
    )
    arrays = _of_patched(found, sets, foreign)
    for role in foreign:
        own = {str(head): found.own(head, role) for head in heads_of(spec.members)}
        arrays |= {
            Key(OWN_DAMAGE, name, role): values
            for name, values in own.items()
            if values is not None
        }
    return arrays


def _foreign(others: Mapping[str, OtherReading]) -> dict[str, ForeignHeads]:
    return {role: one.heads for role, one in others.items() if one.heads is not None}


def _of_patched(
    found: Patched, sets: Mapping[str, tuple[Member, ...]], roles: Iterable[str]
) -> dict[Key, FloatArray]:
    """What patching sets of members cost, as samples have it."""
    arrays = {Key(IMPORTANCE, name, BASE): found.importance(one) for name, one in sets.items()}
    for role in roles:
        arrays |= {Key(DAMAGE, name, role): found.damage(one, role) for name, one in sets.items()}
    return arrays


def _of_behaviour(
    found: Behaviour, counterfactual: FloatArray | None, role: str
) -> dict[Key, FloatArray]:
    read = {
        READOUT: found.readout,
        CORRECT: found.correct,
        TOP1: found.top1,
        SAID: found.said,
        COUNTERFACTUAL: counterfactual,
    }
    return {
        Key(quantity, WHOLE, role): values.astype(np.float64)
        for quantity, values in read.items()
        if values is not None
    }


def _compared(
    opened: Opened, spec: GateSpec, others: Mapping[str, OtherReading], samples: Samples
) -> tuple[Samples, dict[str, ForgetguardError]]:
    arrays, exact = dict(samples.arrays), dict(samples.exact)
    failed: dict[str, ForgetguardError] = {}
    for one in others.values():
        failed |= one.failed
    for measure in reading(spec):
        compare = measure.compare
        if compare is None or measure.key in failed:
            continue
        try:
            for role, other in others.items():
                kept = other.kept.get(measure.key)
                found = guarded(measure, partial(compare, opened, kept))
                for subject, values in checked(measure, found, len(samples.units)).items():
                    key = Key(measure.key, subject, role)
                    if measure.estimator is Estimator.EXACT:
                        exact[key] = float(values)
                    else:
                        arrays[key] = values
                for key, values in opened.beside.items():
                    arrays[key._replace(role=key.role or role)] = values
                opened.beside.clear()
        except ForgetguardError as error:
            failed[measure.key] = error
    return replace(samples, arrays=arrays, exact=exact), failed


# --- what measures of other distributions may get wrong ------------------------------------------


def guarded(measure: Measure, run: Callable[[], T]) -> T:
    """What a measure's own code returns.

    Raises:
        ForgetguardError: that of the measure; MeasurementError for whatever else another
            distribution's raises. (An exception of our own measures is a defect, and stays one.)
    """
    try:
        return run()
    except ForgetguardError:
        raise
    except Exception as error:
        if measure.source == "forgetguard":
            raise
        raise MeasurementError(
            f"measure {measure.key!r} of {measure.source} failed with "
            f"{registry.described(error)}: report it there"
        ) from error


def checked(measure: Measure, found: object, count: int) -> dict[str, FloatArray]:
    """What a measure's `compare` returned, as float64 [unit] by subject (or [] where it is exact).

    Raises:
        MeasurementError: it is not that, or holds a number that is not finite.
    """
    shape = () if measure.estimator is Estimator.EXACT else (count,)
    what = f"measure {measure.key!r} of {measure.source}"
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise MeasurementError(f"{what} must return arrays by subject, got {type(found).__name__}")
    arrays = {}
    for name, values in found.items():
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise MeasurementError(f"{what} returned no numbers for {name!r}: {error}") from error
        if array.shape != shape:
            raise MeasurementError(
                f"{what} returned shape {array.shape} for {name or 'the whole'!r}, expected {shape}"
            )
        if not np.isfinite(array).all():
            raise MeasurementError(f"{what} is not finite for {name or 'the whole'!r}")
        arrays[name] = array
    if not arrays:
        raise MeasurementError(f"{what} returned nothing")
    return arrays


def capability_of(part: Part) -> EncodedCapability:
    """The prompt pairs of a part that has them."""
    assert part.pairs is not None  # the file gives pairs: its schema has seen to that
    return part.pairs
