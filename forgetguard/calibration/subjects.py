"""Circuits made ready to be measured on one base, and against several other models at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.encoding import check_same_ids
from forgetguard.discovery.on_checkpoint import Search, check, discover_on
from forgetguard.errors import BaseCannotError, SpecificationError
from forgetguard.gate.declaration import GateSpec, InlinePairs
from forgetguard.gate.looks import as_capability
from forgetguard.gate.measurement import Measurement
from forgetguard.gate.session import as_measurement, auto_note, check_base, discovery_pairs
from forgetguard.gate.suitability import check_heads, check_names
from forgetguard.measures.behaviour import behaviour, check_able
from forgetguard.measures.vulnerability import (
    ForeignHeads,
    PatchedDrops,
    capture_heads,
    patched_drops,
)
from forgetguard.patching.budget import memory_errors

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import ModelPair

Progress = Callable[[str, int, int], None]  # what, done, total
JUDGED = ("dcv.circuit", "dcv.all", "dcv.head", "accuracy.drop", "readout.drop")
_TUNED = "tuned"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A circuit of the base, its heads known, on its own pairs. `notes`: what `auto` stands for."""

    spec: GateSpec
    capability: EncodedCapability
    notes: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        return self.capability.n_pairs


@dataclass(frozen=True, slots=True, eq=False)
class Subjects:
    """Those that the base can do, and why the others were left out."""

    ready: tuple[Subject, ...]
    refused: tuple[str, ...]


def prepare(
    pair: ModelPair,
    circuits: Sequence[GateSpec],
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Subjects:
    """Encode every circuit's prompts, find those of `circuit: auto`, and run the self-checks.

    Raises:
        SpecificationError: no circuits, or two of one name.
        BaseCannotError: the base can do none of the capabilities.
        ForgetguardError: a circuit's prompts or heads do not suit the base.
    """
    if not circuits:
        raise SpecificationError("no circuits to measure: give circuit files")
    check_names(circuits)
    ready, refused = [], []
    for number, spec in enumerate(map(fixed, circuits)):
        if progress is not None:
            progress("checking circuits", number, len(circuits))
        try:
            ready.append(_ready(pair, spec, cache, progress))
        except BaseCannotError as error:
            refused.append(f"{spec.name}: {error}")
    if not ready:
        raise BaseCannotError("\n".join(refused))
    return Subjects(tuple(ready), tuple(refused))


def fixed(spec: GateSpec) -> GateSpec:
    """The circuit on as many pairs as may be drawn, at one look, with the limits that two models
    can be judged by: nulls and planted damage have no reference and no baseline."""
    limits = tuple(limit for limit in spec.limits if limit.key in JUDGED)
    pairs = spec.pairs
    if not isinstance(pairs, InlinePairs) and pairs.most is not None:
        pairs = replace(pairs, count=pairs.most, most=None)
    return replace(spec, pairs=pairs, limits=limits)


def _ready(
    pair: ModelPair, spec: GateSpec, cache: Path | None, progress: Progress | None
) -> Subject:
    encoded = as_capability(spec).encoded(pair.base.tokenizer)
    for other in pair.checkpoints[1:]:
        theirs = as_capability(spec).encoded(other.tokenizer)
        check_same_ids(encoded.encoded, theirs.encoded.pairs, other.role)
    notes: tuple[str, ...] = ()
    if spec.auto:
        drawn, remarks = discovery_pairs(spec)
        found = discover_on(pair.base, drawn, Search(), cache=cache, progress=progress)
        spec, notes = replace(spec, heads=found.circuit), (auto_note(found), *remarks)
    check_base(spec, pair.base)
    with memory_errors(f"checking circuit {spec.name}"), pair.base.open() as model:
        anatomy = locate(model)
        check_heads(
            spec, anatomy.n_layers, min(site.n_heads for site in anatomy.sites if site is not None)
        )
        check(anatomy, encoded, spec.heads)
        check_able(encoded, behaviour(anatomy, encoded))
    return Subject(spec, encoded, notes)


def everything(spec: GateSpec, anatomy: Anatomy) -> tuple[Member, ...]:
    """Every head of the model, where a limit asks what they lose together."""
    return anatomy.heads if any(limit.needs_all_heads for limit in spec.limits) else ()


def read_heads(
    anatomy: Anatomy,
    subjects: Sequence[Subject],
    vocabulary: int | None,
    *,
    also: Mapping[str, Sequence[Member]] | None = None,
) -> tuple[ForeignHeads, ...]:
    """What crosses from an open model to the base, circuit by circuit.

    `also`: further members to read, by the circuit's name.

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    found = []
    for subject in subjects:
        more = (also or {}).get(subject.spec.name, ())
        wanted = sorted({*subject.spec.heads, *everything(subject.spec, anatomy), *more})
        with memory_errors(f"reading the heads of circuit {subject.spec.name}"):
            found.append(capture_heads(anatomy, subject.capability, wanted, vocabulary=vocabulary))
    return tuple(found)


def measured(
    anatomy: Anatomy,
    subject: Subject,
    others: Mapping[str, ForeignHeads],
    *,
    vocabulary: int | None = None,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Measurement]:
    """What the gate would measure of each of `others` as the tuned model, by name; all of a circuit
    share one wavefront over the open base and its importance.

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    spec = subject.spec
    with memory_errors(f"patching circuit {spec.name}"):
        drops = patched_drops(
            anatomy,
            subject.capability,
            spec.heads,
            others,
            everything=everything(spec, anatomy),
            site=spec.site,
            vocabulary=vocabulary,
            budget=budget,
            progress=progress,
        )
    return {
        name: as_measurement(
            subject.capability,
            PatchedDrops(
                drops.base,
                drops.importance,
                {_TUNED: drops.damage[name]},
                {_TUNED: drops.own.get(name, {})},
            ),
            {_TUNED: other},
        )
        for name, other in others.items()
    }
