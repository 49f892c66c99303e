"""What a gate file is measured on, in token ids, stage by stage.

With `most` in its file, a circuit is measured on `count` pairs first, then on twice as many, up to
`most`, for as long as a limit is undecided. The pairs of a stage are the first ones of the next, so
every stage reads what a fixed count of as many pairs would read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import check_same_ids, encode_prompt
from forgetguard.capabilities.pairs import Prompt
from forgetguard.errors import CapabilityError
from forgetguard.gate import spending
from forgetguard.gate.declaration import FilePairs, GateSpec, InlinePairs, Prompts, TaskPairs
from forgetguard.gate.resampling import derive_seed
from forgetguard.measures.divergence import Passage, passage, passages_of
from forgetguard.measures.documents import Documents, EvalTasks
from forgetguard.measures.harness import documents
from forgetguard.measures.samples import Note, Unit

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint, ModelPair

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Units that are measured together: their texts, their passages, and, where they are prompt
    pairs, those as ids and in batches; where they are documents of lm-eval tasks, the tasks.
    `new_task`: prompts of the new task, where the file gives some, in every part the same;
    `vocabulary`: so many ids count, as in `pairs`."""

    units: tuple[Unit, ...]
    passages: tuple[Passage, ...]
    pairs: EncodedCapability | None = None
    documents: Documents | None = None
    new_task: tuple[Passage, ...] = ()
    vocabulary: int | None = None

    @property
    def dropped(self) -> int:
        """Pairs that did not align."""
        return 0 if self.pairs is None else self.pairs.encoded.n_dropped


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """whole: everything that may be drawn. parts: what each stage adds. counts: the units at each
    stage; empty where drawing is not sequential, and then there is one part."""

    whole: Part
    parts: tuple[Part, ...]
    counts: tuple[int, ...] = ()


_NOTHING = Part((), ())
NO_UNITS = Stages(_NOTHING, (_NOTHING,))


def encode(spec: GateSpec, pair: ModelPair) -> Stages:
    """What a gate file is measured on.

    Raises:
        CapabilityError: its prompts do not suit the base's tokenizer, or another's gives other ids.
        MeasurementError: lm-eval cannot make its documents.
    """
    base, *others = pair.checkpoints
    found = _encoded(spec, base, others)
    new = () if spec.new_task is None else _passages(spec, spec.new_task, base, others)[1]

    def with_rest(part: Part) -> Part:
        pairs = None if part.pairs is None else replace(part.pairs, vocabulary=pair.vocabulary)
        return replace(part, pairs=pairs, new_task=new, vocabulary=pair.vocabulary)

    return replace(found, whole=with_rest(found.whole), parts=tuple(map(with_rest, found.parts)))


def _encoded(spec: GateSpec, base: Checkpoint, others: Sequence[Checkpoint]) -> Stages:
    if isinstance(spec.pairs, EvalTasks):
        given = spec.pairs
        if spec.prompt_seed is not None:
            given = replace(given, seed=derive_seed(spec.prompt_seed, "prompts", spec.name))
        found = documents(given, {one.role: one.tokenizer for one in (base, *others)})
        part = Part(found.units, (), documents=found)
        return Stages(part, (part,))
    if isinstance(spec.pairs, Prompts):
        part = Part(*_passages(spec, spec.pairs, base, others))
        return Stages(part, (part,))
    if spec.pairs is None:
        return NO_UNITS
    capability = as_capability(spec)
    with _whose(base):
        encoded = capability.encoded(base.tokenizer)
    for other in others:
        if other.tokenizer is not base.tokenizer:
            with _whose(other):
                theirs = capability.encoded(other.tokenizer)
            check_same_ids(encoded.encoded, theirs.encoded.pairs, str(other.spec))
    return stages_of(spec, encoded)


@contextmanager
def _whose(checkpoint: Checkpoint) -> Iterator[None]:
    """Inside, an error of a tokenizer says which checkpoint's it is."""
    try:
        yield
    except CapabilityError as error:
        raise type(error)(f"{error} (the tokenizer of {checkpoint.spec})") from error


def as_capability(spec: GateSpec) -> Capability:
    """The capability that a file declares, with all pairs that may be drawn."""
    given: dict[str, Any] = {}
    if isinstance(spec.pairs, TaskPairs):
        task, count = spec.pairs.task, spec.pairs.most or spec.pairs.count
        given = {"task": task, "count": count, "seed": spec.pairs.seed}
        if spec.prompt_seed is not None:
            given["seed"] = derive_seed(spec.prompt_seed, "prompts", task, str(spec.pairs.seed))
            given["held_out"] = True
    elif isinstance(spec.pairs, InlinePairs):
        given = {"pairs": spec.pairs.pairs}
    elif isinstance(spec.pairs, FilePairs):
        given = {"pairs": _drawn(spec, spec.pairs.pairs, spec.pairs.most or spec.pairs.count)}
    return Capability(
        name=spec.capability, readout=spec.readout, chat_template=spec.chat_template, **given
    )


def _drawn(spec: GateSpec, given: Sequence[T], count: int | None) -> tuple[T, ...]:
    """The first `count` of a file, or, with a seed of the run, as many of all of them."""
    if spec.prompt_seed is None or not _has_more(given, count):
        return tuple(given[:count])
    seed = derive_seed(spec.prompt_seed, "prompts", spec.name)
    return tuple(random.Random(seed).sample(list(given), count or 0))


def _has_more(given: Sequence[object], count: int | None) -> bool:
    return count is not None and count < len(given)


def prompt_notes(spec: GateSpec) -> tuple[Note, ...]:
    """Whether the prompts are fixed, for everyone who has the file to train on, or were drawn; and
    which limits read the base alone."""
    pairs = spec.pairs
    if pairs is None:
        return ()
    base_alone = [one.key for one in spec.limits if one.measure.is_of_base]
    alone = (Note("base_alone", {"limits": base_alone}),) if base_alone else ()
    if isinstance(pairs, TaskPairs):
        kind, can = "task", True
    elif isinstance(pairs, FilePairs):
        kind, can = "file", _has_more(pairs.pairs, pairs.most or pairs.count)
    elif isinstance(pairs, EvalTasks):
        kind, can = "tasks", pairs.limit is not None
    elif isinstance(pairs, Prompts):
        kind, can = "prompts", _has_more(pairs.prompts, pairs.count)
    else:
        kind, can = "inline", False
    if can and spec.prompt_seed is not None:
        return (Note("drawn_prompts", {"seed": spec.prompt_seed}), *alone)
    return (Note("fixed_prompts", {"kind": kind, "can_be_drawn": can}), *alone)


def stages_of(spec: GateSpec, whole: EncodedCapability) -> Stages:
    """The stages of a file's pairs, all of which are in `whole`."""
    drawn = isinstance(spec.pairs, TaskPairs | FilePairs)
    first, most = (spec.pairs.count, spec.pairs.most) if drawn else (None, None)  # type: ignore[union-attr]
    part = _part(whole)
    if most is None or first is None:
        return Stages(part, (part,))
    counts = spending.stages(min(first, whole.n_pairs), whole.n_pairs)
    return Stages(part, _parts(whole, counts), counts)


def _parts(whole: EncodedCapability, counts: Sequence[int]) -> tuple[Part, ...]:
    parts = []
    for start, end in zip((0, *counts), counts, strict=False):
        pairs = whole.encoded.pairs[start:end]
        encoded = replace(whole.encoded, pairs=pairs)
        parts.append(_part(EncodedCapability(whole.capability, encoded, make_batches(pairs))))
    return tuple(parts)


def _part(capability: EncodedCapability) -> Part:
    units = tuple(pair.pair for pair in capability.encoded.pairs)
    return Part(units, passages_of(capability), capability)


def _passages(
    spec: GateSpec, prompts: Prompts, base: Checkpoint, others: Sequence[Checkpoint]
) -> tuple[tuple[Prompt, ...], tuple[Passage, ...]]:
    """Those that are drawn, and their ids."""
    found = []
    chosen = _drawn(spec, prompts.prompts, prompts.count)
    for prompt in chosen:
        with _whose(base):
            ids = encode_prompt(prompt, base.tokenizer, chat_template=spec.chat_template)
        for other in others:
            if other.tokenizer is base.tokenizer:
                continue
            with _whose(other):
                theirs = encode_prompt(prompt, other.tokenizer, chat_template=spec.chat_template)
            if theirs != ids:
                raise CapabilityError(
                    f"{spec.where(prompt.line or prompts.line)}: the tokenizer of {other.spec} "
                    f"gives other ids than the base's on {prompt.clean!r}: the two cannot be "
                    "compared on it"
                )
        found.append(passage(*ids))
    return chosen, tuple(found)


def part_notes(part: Part) -> tuple[Note, ...]:
    """What became of the pairs that were asked for."""
    if part.documents is not None and part.documents.left_out:
        return (Note("left_out", {"metrics": list(part.documents.left_out)}),)
    if part.pairs is None:
        return ()
    encoded = part.pairs.encoded
    notes = [
        Note("pairs_dropped", {"count": count, "why": why})
        for why, count in sorted(encoded.dropped.items())
    ]
    if encoded.asked is not None and len(encoded.pairs) < encoded.asked:
        notes.append(Note("few_exist", {"count": len(encoded.pairs), "asked": encoded.asked}))
    if encoded.marker:
        notes.append(Note("reply_marker", {"marker": encoded.marker}))
    return tuple(notes)
