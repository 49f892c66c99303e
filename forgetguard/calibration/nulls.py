"""The same model read otherwise, and models changed at random: where DCV has little to say.

Harmless by construction, for nothing was forgotten: the base in another number format (`dtype`),
its prompts in other batches and waves (`batches`), its attention by another kernel (`kernel`). A
yardstick and no more (`matched`): the base with a random change of every weight matrix as large,
in Frobenius norm, as tuning's. That may really do damage; what became of the behaviour is beside
it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Member, Mlp, heads_of
from forgetguard.calibration.copies import Moved, perturbation, temporary_copy
from forgetguard.calibration.prepared import Prepared, measured, read_others
from forgetguard.capabilities.batches import Batch, batch_of
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import first_line
from forgetguard.gate.runner import OtherReading, capability_of
from forgetguard.gate.stages import Part
from forgetguard.gate.suggestion import base_alone, other_dtype
from forgetguard.measures import vulnerability
from forgetguard.measures.samples import Samples
from forgetguard.measures.vulnerability import ForeignHeads
from forgetguard.patching.budget import CPU_TOKENS, memory_errors

# The base in another number format; on other batches of prompts, patched in waves of another size;
# with another attention kernel; with a random change of every matrix, as large as tuning's.
DTYPE, BATCHES, KERNEL, MATCHED, TUNED = "dtype", "batches", "kernel", "matched", "tuned"
HARMLESS = (DTYPE, BATCHES, KERNEL)
_TOGETHER = 8  # nulls whose heads are held, or sets, that are patched in one wavefront
_SEEDS = 100_003  # between the draws of one seed and of the next
_LEAST_TOKENS = 64  # of a wave


@dataclass(frozen=True, slots=True)
class Null:
    """One draw: its kind and what tells it from others of the kind."""

    kind: str
    name: str

    @property
    def harmless(self) -> bool:
        return self.kind in HARMLESS


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one null came to, as the gate would measure it, by circuit."""

    null: Null
    samples: Mapping[str, Samples]


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """The base, the circuits, and what all readings have in common.

    seed: of everything drawn.
    """

    pair: ModelPair
    prepared: tuple[Prepared, ...]
    seed: int = 0
    progress: Progress | None = None

    def report(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(what, done, total)


Readings = tuple[OtherReading, ...]  # in the order of the files
Read = tuple[Null, Readings]


def read_dtype(setting: Setting) -> Read:
    """The heads of the base in `other_dtype`."""
    options = setting.pair.options
    other = replace(options, dtype=other_dtype(options.dtype))
    setting.report(f"reading the base in {other.dtype}", 0, 1)
    with base_alone(setting.pair, other) as model:
        return Null(DTYPE, other.dtype), _heads(setting, model)


def read_kernel(setting: Setting) -> Read | str:
    """The heads of the base with eager attention where it runs another kernel, else with sdpa; or,
    where the architecture has no other kernel, a note that says so."""
    setting.report("reading the base with another attention kernel", 0, 1)
    with base_alone(setting.pair, setting.pair.options) as model:
        config: Any = model.config
        now = config._attn_implementation
        name = "sdpa" if now == "eager" else "eager"
        try:
            model.set_attn_implementation(name)
        except (ValueError, ImportError, NotImplementedError) as error:
            return f"no other attention kernel was read: {first_line(error)}"
        if config._attn_implementation != name:
            return f"no other attention kernel was read: the model keeps {now}"
        return Null(KERNEL, f"{name} against {now}"), _heads(setting, model)


def read_matched(setting: Setting, changes: Mapping[str, Moved], draws: int) -> Iterator[Read]:
    """The heads of the base with `draws` random changes, each a checkpoint written, read, deleted.

    Raises:
        CheckpointError: a copy of the base cannot be written.
    """
    base, options = setting.pair.base.spec, setting.pair.options
    for draw in range(draws):
        setting.report("reading random changes of the weights", draw, draws)
        direction = perturbation(changes, seed=setting.seed * _SEEDS + draw)
        with (
            temporary_copy(base, direction, options, role="base") as copy,
            base_alone(setting.pair, options, copy) as model,
        ):
            heads = _heads(setting, model)
        yield Null(MATCHED, str(draw)), heads


def _heads(setting: Setting, model: Any) -> Readings:
    return read_others(locate(model), setting.prepared)


def patched(
    setting: Setting, reads: Iterable[Read], *, budget: int | None = None
) -> Iterator[Reading]:
    """Each null's heads patched into the base, a few nulls in one wavefront. `budget`: tokens of a
    wave."""
    rest = iter(reads)
    while block := list(islice(rest, _TOGETHER)):
        found: dict[str, dict[str, Samples]] = {}
        with setting.pair.base.open() as model:
            anatomy = locate(model)
            for place, one in enumerate(setting.prepared):
                name = one.spec.name
                found[name] = measured(
                    anatomy,
                    one,
                    {str(number): heads[place] for number, (_, heads) in enumerate(block)},
                    budget=budget,
                    progress=partial(setting.report, f"patching {name}"),
                )
        for number, (null, _) in enumerate(block):
            yield Reading(null, {name: of[str(number)] for name, of in found.items()})


# --- other batches --------------------------------------------------------------------------------


def batches_readings(setting: Setting, draws: int) -> Iterator[Reading]:
    """The base on `draws` random compositions of batches, patched in waves of a random size."""
    rng = random.Random(f"batches {setting.seed}")
    read: list[Read] = []
    with setting.pair.base.open() as model:
        anatomy = locate(model)
        for draw in range(draws):
            setting.report("reading other batches", draw, draws)
            others = [replace(one, part=_recut(one.part, rng)) for one in setting.prepared]
            found = read_others(anatomy, others)
            pairs = zip(found, others, setting.prepared, strict=True)
            regrouped = tuple(_regrouped(one, there.part, to.part) for one, there, to in pairs)
            read.append((Null(BATCHES, str(draw)), regrouped))
    return patched(setting, read, budget=rng.randint(_LEAST_TOKENS, CPU_TOKENS))


def _recut(part: Part, rng: random.Random) -> Part:
    return part if part.pairs is None else replace(part, pairs=recut(part.pairs, rng))


def _regrouped(reading: OtherReading, read: Part, wanted: Part) -> OtherReading:
    if reading.heads is None or read.pairs is None or wanted.pairs is None:
        return reading
    return replace(reading, heads=_in_place(reading.heads, read.pairs, wanted.pairs))


def recut(capability: EncodedCapability, rng: random.Random) -> EncodedCapability:
    """The same pairs in other batches: those of one shape shuffled, and cut at random sizes."""

    def shape(batch: Batch) -> tuple[int, tuple[int, ...], bool]:
        return batch.clean.shape[1], batch.positions, batch.distractor is None

    batches = []
    ordered = sorted(capability.batches, key=lambda batch: (shape(batch), batch.pairs))
    for _, same in groupby(ordered, key=shape):
        group = list(same)
        start, first = min(batch.start for batch in group), group[0]
        further = [
            0 if one is None else one.shape[1] - 1 for one in (first.answers, first.distractors)
        ]
        rows = [row for batch in group for row in batch.pairs]
        rng.shuffle(rows)
        while rows:
            size = rng.randint(1, len(rows))
            batch = batch_of(capability.encoded.pairs, rows[:size], *further)
            batches.append(replace(batch, start=start))
            rows = rows[size:]
    return replace(capability, batches=tuple(batches))


def _in_place(
    foreign: ForeignHeads, read: EncodedCapability, wanted: EncodedCapability
) -> ForeignHeads:
    """What was read batch by batch of `read`, in the batches of `wanted`."""
    by_pair = {
        pair: {member: z[row] for member, z in part.items()}
        for batch, part in zip(read.batches, foreign.z, strict=True)
        for row, pair in enumerate(batch.pairs)
    }
    z = tuple(
        {
            member: torch.stack([by_pair[pair][member] for pair in batch.pairs])
            for member in foreign.z[0]
        }
        for batch in wanted.batches
    )
    return replace(foreign, z=z)


# --- any heads ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class HeadSets:
    """The null "any heads": random sets of members and, for each, the mean damage in the tuned
    model over the circuit's mean importance, float64 [set].

    Unlike the controls beside a verdict (measures/other_heads.py), which lie outside the circuit
    and in its layers, these are drawn from all of the model: a circuit chosen at random. What a set
    costs is a share of the CIRCUIT's importance, so that the numbers compare with its DCV.
    """

    sets: tuple[tuple[Member, ...], ...]
    values: npt.NDArray[np.float64]

    def rank(self, value: float) -> float:
        """How often a random set reads `value` or more, counting the circuit as one draw more:
        (1 + sets at or above) / (1 + sets). A Monte-Carlo p-value (Davison and Hinkley 1997, 4.2).
        """
        return float((1 + (self.values >= value).sum()) / (1 + len(self.values)))


def any_sets(
    circuit: Sequence[Member], members: Sequence[Member], draws: int, seed: str
) -> tuple[tuple[Member, ...], ...]:
    """`draws` sets with as many heads, and as many MLP layers, as the circuit, from all of
    `members`; the circuit's own are among them."""
    rng = random.Random(f"random head sets {seed}")
    heads = sorted(heads_of(members))
    mlps = sorted(one for one in members if isinstance(one, Mlp))
    n_heads = len(heads_of(circuit))
    return tuple(
        tuple(sorted([*rng.sample(heads, n_heads), *rng.sample(mlps, len(circuit) - n_heads)]))
        for _ in range(draws)
    )


def read_tuned(setting: Setting, draws: int) -> tuple[Read, dict[str, HeadSets]]:
    """The heads of the tuned model itself: no null, but what the nulls are held against. And what
    random sets of them cost beside each circuit."""
    with setting.pair.tuned.open() as model:
        anatomy = locate(model)
        members = anatomy.members(mlps=True)
        chosen = {
            spec.name: any_sets(spec.members, members, draws, f"{setting.seed} {spec.name}")
            for spec in (one.spec for one in setting.prepared)
        }
        more = {name: sorted({*chain(*sets)}) for name, sets in chosen.items()}
        heads = read_others(anatomy, setting.prepared, also=more)
    found = {}
    with setting.pair.base.open() as model:
        anatomy = locate(model)
        for one, reading in zip(setting.prepared, heads, strict=True):
            if reading.heads is not None and one.spec.members:
                name = one.spec.name
                found[name] = _sets_read(setting, anatomy, one, reading.heads, chosen[name])
    return (Null(TUNED, setting.pair.tuned.spec.given), heads), found


def _sets_read(
    setting: Setting,
    anatomy: Anatomy,
    prepared: Prepared,
    foreign: ForeignHeads,
    sets: Sequence[tuple[Member, ...]],
) -> HeadSets:
    """Patch each of `sets` from the tuned model into the base."""
    capability, spec = capability_of(prepared.part), prepared.spec
    distinct = list(dict.fromkeys(sets))
    lost: list[float] = []
    with memory_errors(f"patching random heads beside circuit {spec.name}"):
        worth = vulnerability.patched(anatomy, capability, [spec.members], {})
        importance = float(worth.importance(spec.members).mean())
        for start in range(0, len(distinct), _TOGETHER):
            setting.report(f"random heads beside {spec.name}", start, len(distinct))
            block = distinct[start : start + _TOGETHER]
            found = vulnerability.patched(
                anatomy, capability, block, {TUNED: foreign}, importance=False, site=spec.site
            )
            lost += [float(found.damage(one, TUNED).mean()) / importance for one in block]
    by_set = dict(zip(distinct, lost, strict=True))
    return HeadSets(tuple(sets), np.array([by_set[one] for one in sets]))
