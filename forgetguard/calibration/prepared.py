"""Gate files made ready to be measured on one base, and against several other models at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.discovery.on_checkpoint import Search, check, discover_on
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import BaseCannotError, SpecificationError
from forgetguard.gate import stages
from forgetguard.gate.declaration import FilePairs, GateSpec, TaskPairs
from forgetguard.gate.runner import OtherReading, capability_of, read_base, read_members, read_other
from forgetguard.gate.session import auto_notes, check_base, discovery_pairs
from forgetguard.gate.stages import Part, part_notes
from forgetguard.gate.suitability import check_heads, check_names
from forgetguard.measures.ability import check_able
from forgetguard.measures.behaviour import check_length
from forgetguard.measures.samples import BASE, TUNED, Key, Note, Samples
from forgetguard.patching.budget import memory_errors


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A gate file, the members of its circuit known, on its own prompts. `notes`: what `circuit:
    auto` stands for."""

    spec: GateSpec
    part: Part
    notes: tuple[Note, ...] = ()

    @property
    def n_units(self) -> int:
        """Prompts, or pairs."""
        return len(self.part.units)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFiles:
    """Those that the base can do, and why the others were left out."""

    ready: tuple[Prepared, ...]
    refused: tuple[str, ...]


def prepare(
    pair: ModelPair,
    circuits: Sequence[GateSpec],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> PreparedFiles:
    """Encode every file's prompts, find the circuits of `circuit: auto`, and run the self-checks.

    Raises:
        SpecificationError: no files, or two of one name.
        BaseCannotError: the base can do none of the capabilities.
        ForgetguardError: a file's prompts or heads do not suit the base.
    """
    if not circuits:
        raise SpecificationError("no circuits to measure: give circuit files")
    check_names(circuits)
    ready, refused = [], []
    for number, spec in enumerate(map(fixed, circuits)):
        if progress is not None:
            progress("checking circuits", number, len(circuits))
        if not spec.limits and not spec.has_circuit:
            refused.append(f"{spec.name}: no limit in it can be held against a null")
            continue
        try:
            ready.append(_ready(pair, spec, cache, progress))
        except BaseCannotError as error:
            refused.append(f"{spec.name}: {error}")
    if not ready:
        raise BaseCannotError("\n".join(refused))
    return PreparedFiles(tuple(ready), tuple(refused))


def fixed(spec: GateSpec) -> GateSpec:
    """The file on as many pairs as may be drawn, at one stage, with the limits that two models can
    be judged by while they are run: nulls and planted damage have no reference and no baseline, and
    most are no files. What is of the base alone knows of no null."""
    limits = tuple(
        one
        for one in spec.limits
        if not one.over and one.measure.needs_prompts and not one.measure.is_of_base
    )
    pairs = spec.pairs
    if isinstance(pairs, TaskPairs | FilePairs) and pairs.most is not None:
        pairs = replace(pairs, count=pairs.most, most=None)
    return replace(spec, pairs=pairs, limits=limits)


def _ready(
    pair: ModelPair, spec: GateSpec, cache: Path | None, progress: Progress | None
) -> Prepared:
    part = stages.encode(spec, pair).whole
    notes: tuple[Note, ...] = ()
    if spec.auto:
        drawn, on = discovery_pairs(spec, part.units)
        found = discover_on(pair.base, drawn, Search(), cache=cache, progress=progress)
        spec, notes = replace(spec, members=found.circuit), auto_notes(found, on)
    check_base(spec, pair.base)
    if part.documents is not None:
        return Prepared(spec, part, notes)
    if part.pairs is None:
        with pair.base.open() as model:
            check_length(locate(model), spec.name, (len(one.ids) for one in part.passages))
        return Prepared(spec, part, notes)
    encoded = capability_of(part)
    with memory_errors(f"checking circuit {spec.name}"), pair.base.open() as model:
        anatomy = locate(model)
        check_heads(
            spec, anatomy.n_layers, min(site.n_heads for site in anatomy.sites if site is not None)
        )
        check(anatomy, encoded, spec.members)
        check_able(anatomy, encoded)
    return Prepared(spec, part, notes)


def read_others(
    anatomy: Anatomy,
    prepared: Sequence[Prepared],
    *,
    also: Mapping[str, Sequence[Member]] | None = None,
) -> tuple[OtherReading, ...]:
    """What is read of an open model that takes the place of tuned, file by file.

    `also`: further members to read, by the file's name.

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    found = []
    for one in prepared:
        more = (also or {}).get(one.spec.name, ())
        with memory_errors(f"reading the heads of circuit {one.spec.name}"):
            found.append(read_other(anatomy, one.spec, one.part, TUNED, also=more))
    return tuple(found)


def measured(
    anatomy: Anatomy,
    prepared: Prepared,
    others: Mapping[str, OtherReading],
    *,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    located: bool = False,
) -> dict[str, Samples]:
    """What the gate would read of each of `others` as the tuned model, by name; all of a file share
    one wavefront over the open base and its importance. `located`: with every member alone and
    own damage, as of a file with a limit that does not pass.

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice.
        ForgetguardError: a measure failed.
    """
    read = anatomy, prepared.spec, prepared.part, others
    how: dict[str, Any] = {"budget": budget, "progress": progress}
    with memory_errors(f"patching circuit {prepared.spec.name}"):
        samples, failed = read_base(*read, **how)
        if located:
            samples = samples.with_arrays(read_members(*read, **how))
    for error in failed.values():
        raise error
    samples = replace(samples, notes=part_notes(prepared.part))
    return {name: _as_tuned(samples, name) for name in others}


def _as_tuned(samples: Samples, name: str) -> Samples:
    """The samples of the base, and of one other model in the role of tuned."""

    def role(key: Key) -> Key:
        return key._replace(role=TUNED) if key.role == name else key

    arrays = {role(key): one for key, one in samples.arrays.items() if key.role in (BASE, name)}
    exact = {role(key): one for key, one in samples.exact.items() if key.role in (BASE, name)}
    return replace(samples, arrays=arrays, exact=exact)
