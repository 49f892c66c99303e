"""Readouts of a model in which sets of members are replaced, pair by pair: what measures share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forgetguard.anatomy.contributions import output_slices
from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import Batch
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import READOUTS, score
from forgetguard.measures.behaviour import Behaviour, empty_behaviour, read_batch
from forgetguard.measures.lower_layers import LowerLayers
from forgetguard.measures.prompt_pass import Reader, handing_to
from forgetguard.measures.saved import Saved as Saved
from forgetguard.measures.saved import digest
from forgetguard.patching.clean import CleanPass, clean_pass
from forgetguard.patching.prefix import clean_and_prefix
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]  # done, total
# What is patched in, by name, for the batch of that number and its clean pass.
Sources = Callable[[int, Batch, CleanPass], Mapping[str, Source]]

# Runs between two savings. Each part computes the prefix that its runs share again: where little of
# a long prompt differs, parts of 32 spent more on prefixes than on runs.
_SAVED_RUNS = 128
_KEPT_BYTES = 2**30  # that `Passes` may hold


@dataclass(frozen=True, slots=True)
class Intervention:
    """All of `members` replaced together, from the source of that name. No members: the clean
    run."""

    members: tuple[Member, ...]
    source: str = "counterfactual"


@dataclass(frozen=True, slots=True, eq=False)
class Intervened:
    """clean: the model as it is. readout: F in nats under each intervention, float64
    [intervention, pair]."""

    clean: Behaviour
    readout: FloatArray


# Of a batch, by the source's name and the layer: what enters it where every member is replaced.
Replaced = dict[str, dict[int, Tensor]]


@dataclass(slots=True)
class Passes:
    """The clean pass and the sources of each batch, kept from one call of `intervene` to the next
    on the same model and pairs, with sources of the same meaning, as far as there is room.

    members: all that any of the calls patches.
    nested: most calls replace all members but some: what enters each layer in the run that replaces
        all is kept too, and a run begins at the first layer in which it leaves one in place.
    """

    members: Sequence[Member]
    nested: bool = False
    _kept: dict[int, tuple[CleanPass, Mapping[str, Source], Replaced]] = field(default_factory=dict)
    _slices: dict[Member, Tensor] = field(default_factory=dict)
    _bytes: int = 0

    def get(self, batch: int) -> tuple[CleanPass, Mapping[str, Source], Replaced] | None:
        """Those of a batch, where they are kept."""
        return self._kept.get(batch)

    def slices(self, anatomy: Anatomy, members: Sequence[Member]) -> dict[Member, Tensor]:
        """The output-projection slices of at least `members`."""
        self._slices |= output_slices(anatomy, [one for one in members if one not in self._slices])
        return self._slices

    def keep(
        self,
        batch: int,
        passed: CleanPass,
        sources: Mapping[str, Source],
        replaced: Replaced | None = None,
    ) -> None:
        """Keep those of a batch, unless they take too much."""
        held = [*passed.z.values(), *passed.residual.values(), *passed.attention.values()]
        held += [one for layers in (replaced or {}).values() for one in layers.values()]
        held += [z for source in sources.values() for z in source.z.values()]
        for prefix in passed.prefixes.values():
            held += [one for both in prefix or () for one in both]
        taken = sum(one.numel() * one.element_size() for one in held)
        if batch not in self._kept and self._bytes + taken <= _KEPT_BYTES:
            self._kept[batch] = passed, sources, replaced or {}
            self._bytes += taken


def intervene(
    anatomy: Anatomy,
    capability: EncodedCapability,
    interventions: Sequence[Intervention],
    sources: Sources,
    *,
    budget: int | None = None,
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
    beside: Callable[[], AbstractContextManager[None]] = nullcontext,
    kept: Collection[str] | None = None,
    readers: Sequence[Reader[Any]] = (),
) -> Intervened:
    """Read a model on every pair under every intervention; all of a batch share one wavefront.

    Args:
        budget: tokens held at once (see `wavefront`).
        progress: called with (patched prompts done, all).
        saved: keeps what is finished, and is asked for it first. It must belong to this model,
            and a name of a source must mean one source in it; prompts, readout and interventions
            are told apart here.
        passes: of earlier calls, to be taken up, and kept for later ones.
        beside: entered around each batch's clean pass, before its sources are asked for.
        kept: the sources whose runs `saved` keeps, by default all; theirs and the others' are in
            wavefronts of their own, so that a number is the same whether others were kept or not.
            Then what is kept is found by what the clean prompts read too, bit for bit: another
            model's, or another machine's, is never taken up. What lies below the first member's
            layer on the clean prompts is kept beside it (measures/lower_layers.py), but where a
            reader takes all layers.
        readers: what else is read in the clean pass. Where `passes` hold it, there is none.

    Raises:
        AnatomyError: a member is not in the model.
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    also = () if passes is None else passes.members
    members = sorted({member for one in interventions for member in one.members}.union(also))
    anatomy.check(members)
    readout = READOUTS[capability.capability.readout]
    clean = empty_behaviour(capability.n_pairs)
    values = np.full((len(interventions), capability.n_pairs), np.nan)
    slices = (passes or Passes(members)).slices(anatomy, members)
    asked = "" if saved is None else asked_of(capability)
    whole = frozenset(members if passes is not None and passes.nested else ())
    total, done = len(interventions) * capability.n_pairs, 0
    lower = None
    whole_pass = any(one.layers for one in readers)
    if saved is not None and kept is not None and members and not whole_pass:
        lower = LowerLayers.of(anatomy, capability.batches, members[0], saved, asked)
    for number, batch in enumerate(capability.batches):

        def reduce(logits: Tensor, rows: Tensor, batch: Batch = batch) -> Tensor:
            return score(readout, logits[..., : capability.vocabulary], batch, rows).double().cpu()

        with torch.no_grad():
            before = None if passes is None else passes.get(number)
            found: Mapping[str, Source] | None = None
            replaced: Replaced = {}
            if before is None:
                below = None if lower is None else lower.load(number)
                given = anatomy, batch.clean, batch.positions, members
                with beside(), handing_to(readers, anatomy, batch.pairs, batch.positions):
                    passed = (
                        clean_pass(*given, own=slices, below=below)
                        if passes is None
                        else clean_and_prefix(*given, batch.start, own=slices)
                    )
                if lower is not None and below is None:
                    lower.save(number, passed)
            else:
                passed, found, replaced = before
            read_batch(capability, batch, passed.logits, clean)
            read = None if kept is None else clean.readout[list(batch.pairs)].tobytes()
            for part, keeps in _parts(interventions, saved, kept):
                chosen = [interventions[place] for place in part]
                key = _key(asked, number, batch, chosen, read)
                block = saved.load(key) if saved is not None and keeps else None
                if block is None or block.shape != (len(chosen), len(batch.pairs)):
                    found = sources(number, batch, passed) if found is None else found
                    block = _patch(
                        passed, chosen, found, clean.readout, batch, reduce, budget, whole, replaced
                    )
                    if saved is not None and keeps:
                        saved.save(key, block)
                values[np.ix_(part, batch.pairs)] = block
                done += block.size
                if progress is not None:
                    progress(done, total)
            if passes is not None and found is not None:
                passes.keep(number, passed, found, replaced)
    return Intervened(clean, values)


def _parts(
    interventions: Sequence[Intervention], saved: Saved | None, kept: Collection[str] | None
) -> list[tuple[list[int], bool]]:
    """What is run together, by place, and whether it is kept."""
    keeps = [kept is None or one.source in kept for one in interventions]
    held = [place for place, keep in enumerate(keeps) if keep]
    rest = [place for place, keep in enumerate(keeps) if not keep]
    size = max(len(held), 1) if saved is None and kept is None else _SAVED_RUNS
    parts = [(held[first : first + size], True) for first in range(0, len(held), size)]
    return [*parts, (rest, False)] if rest else parts


def asked_of(capability: EncodedCapability) -> str:
    """Tells what a capability asks a model from what others ask, for what is kept of it."""
    # Of all pairs, not of a batch alone: a mean is taken over all of them. And by their ids: two
    # halves of the pairs have the same indices.
    pairs = [one.ids for one in capability.encoded.pairs]
    return digest((capability.capability.readout, capability.vocabulary, pairs))


def _key(
    asked: str, number: int, batch: Batch, chosen: Sequence[Intervention], read: bytes | None
) -> str:
    named = [(one.source, [str(member) for member in one.members]) for one in chosen]
    more = () if read is None else (read,)
    return digest((asked, number, batch.pairs, named, *more))


def _patch(
    passed: CleanPass,
    chosen: Sequence[Intervention],
    sources: Mapping[str, Source],
    clean: FloatArray,
    batch: Batch,
    reduce: Callable[[Tensor, Tensor], Tensor],
    budget: int | None,
    whole: frozenset[Member],
    replaced: Replaced,
) -> FloatArray:
    """F under each of `chosen`, [intervention, row]. Where the first replaces all members, `whole`,
    what enters the layers is left in `replaced`, for others to begin there."""
    block = np.tile(clean[list(batch.pairs)], (len(chosen), 1))
    patched = [i for i, one in enumerate(chosen) if one.members]
    if patched:
        runs = [_run(chosen[i], sources, whole, replaced) for i in patched]
        first = chosen[patched[0]]
        records = whole == {*first.members} and first.source not in replaced
        entered = replaced.setdefault(first.source, {}) if records else None
        values = wavefront(passed, runs, reduce, budget=budget, entered=entered)
        block[patched] = values.numpy()
    return block


def _run(
    one: Intervention,
    sources: Mapping[str, Source],
    whole: frozenset[Member],
    replaced: Replaced,
) -> Run:
    run, entered = Run(one.members, sources[one.source]), replaced.get(one.source, {})
    layer = min((member.layer for member in whole.difference(one.members)), default=0)
    if run.first_layer < layer and layer in entered:
        return Run(one.members, run.source, (layer, entered[layer]))
    return run
