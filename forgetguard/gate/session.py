"""Measures circuits on the checkpoints of a pair, once each, and judges their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.anatomy.locate import Anatomy, AttentionSite, locate
from forgetguard.anatomy.members import Member, heads_of
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import Encoded, check_same_ids
from forgetguard.checkpoints.described import full_config
from forgetguard.checkpoints.local import localise
from forgetguard.discovery.circuit import Found
from forgetguard.discovery.on_checkpoint import Search, discover_on
from forgetguard.discovery.store import cache_folder
from forgetguard.errors import BaseCannotError, ForgetguardError
from forgetguard.gate import decision
from forgetguard.gate.decision import Measurement
from forgetguard.gate.schema import (
    CircuitSpec,
    InlinePairs,
    Limit,
    TaskPairs,
    check_heads,
    check_names,
    check_reference,
)
from forgetguard.gate.verdict import Verdict
from forgetguard.measures.behaviour import behaviour, check_length
from forgetguard.measures.own_damage import detach_attention, own_heads
from forgetguard.measures.vulnerability import (
    Drops,
    ForeignHeads,
    PatchedDrops,
    capture_heads,
    patched_drops,
)
from forgetguard.patching.budget import memory_errors
from forgetguard.patching.selfcheck import check_patching, check_sums

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint, ModelPair

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(slots=True)
class _Planned:
    """A circuit on its way to being measured; `failed` is what stopped it, for it alone."""

    spec: CircuitSpec
    capability: EncodedCapability | None = None
    foreign: dict[str, ForeignHeads] | None = None
    measurement: Measurement | None = None
    failed: ForgetguardError | None = None
    notes: tuple[str, ...] = ()


class GateSession:
    """Circuits of one base, measured on demand.

    The first measurement opens the tuned model (and the reference) once and captures from it the
    heads of every circuit; after that only the base is needed. So two models never need to be in
    memory together, and none is loaded twice. What is wrong with one circuit (its prompts do not
    suit the tokenizer, say) is raised for that circuit only.

    Raises:
        SpecificationError: two circuits share a name, or a limit needs a reference that is not
            there.
    """

    def __init__(
        self,
        pair: ModelPair,
        circuits: Sequence[CircuitSpec],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        cache: Path | None = None,
    ) -> None:
        check_names(circuits)
        if pair.reference is None:
            check_reference(circuits)
        if any(spec.auto for spec in circuits) and cache is None:
            cache = cache_folder()
        self._cache = cache
        self._pair, self._seed, self._progress = pair, seed, progress
        self._plans = {spec.name: _Planned(spec) for spec in circuits}
        self._captured = False
        self._failed: ForgetguardError | None = None
        self._summed: set[str] = set()
        self._vocabulary: int | None = None
        self._attention: dict[str, dict[int, AttentionSite]] = {}  # by role and layer

    def judge(self, circuit: CircuitSpec, limit: Limit) -> Verdict:
        """Measure the circuit, if it has not been yet, and decide one of its limits.

        Raises:
            ForgetguardError: the circuit cannot be measured; the message says why.
        """
        measurement = self.measurement(circuit)
        spec = self._plans[circuit.name].spec  # with the heads that `circuit: auto` stands for
        return decision.judge(spec, limit, measurement, seed=self._seed)

    def measurement(self, circuit: CircuitSpec) -> Measurement:
        """The circuit's numbers, pair by pair (raises ForgetguardError)."""
        plan = self._plans[circuit.name]
        if self._failed is not None:  # loading gigabytes again would fail again
            raise self._failed
        if not self._captured:
            try:
                self._capture()
            except ForgetguardError as error:
                self._failed = error
                raise
        if plan.failed is not None:
            raise plan.failed
        if plan.measurement is None:
            with self._blame(plan):
                plan.measurement = self._measure(plan)
        if plan.failed is not None:
            raise plan.failed
        assert plan.measurement is not None
        return plan.measurement

    def close(self) -> None:
        """Free the models and what was captured from them."""
        self._pair.close()
        self._plans.clear()

    @contextmanager
    def _blame(self, plan: _Planned) -> Iterator[None]:
        """Keep an error of one circuit for the limits of that circuit."""
        try:
            yield
        except ForgetguardError as error:
            plan.failed = error

    def _others(self) -> list[Checkpoint]:
        return [checkpoint for checkpoint in self._pair.checkpoints if checkpoint.role != "base"]

    def _capture(self) -> None:
        """Encode every circuit's prompts; read its heads from every model but the base."""
        self._vocabulary = shared_vocabulary(self._pair)
        for plan in self._plans.values():
            with self._blame(plan):
                plan.capability = self._encode(plan.spec)
                plan.foreign = {}
        self._discover()
        for checkpoint in self._others():
            with checkpoint.open() as model:
                anatomy = locate(model)
                for number, plan in enumerate(self._plans.values()):
                    self._report(f"reading {checkpoint.role}", number, len(self._plans))
                    if plan.failed is None:
                        with self._blame(plan):
                            self._read(plan, anatomy, checkpoint.role)
                self._attention[checkpoint.role] = detach_attention(anatomy, self._layers())
        self._captured = True

    def _discover(self) -> None:
        """Find the circuits of `circuit: auto` in the base, or take them from the cache."""
        for plan in self._plans.values():
            if plan.failed is not None or not plan.spec.auto:
                continue
            with self._blame(plan):
                capability, notes = discovery_pairs(plan.spec)
                try:
                    found = discover_on(
                        self._pair.base,
                        capability,
                        Search(),
                        cache=self._cache,
                        progress=self._progress,
                    )
                except BaseCannotError as error:
                    plan.notes = (f"no circuit was looked for: {error}",)
                    continue
                plan.spec = replace(plan.spec, heads=found.circuit)
                plan.notes = (auto_note(found), *notes)

    def _encode(self, spec: CircuitSpec) -> EncodedCapability:
        capability = as_capability(spec)
        encoded = capability.encoded(self._pair.base.tokenizer)
        for checkpoint in self._others():
            theirs = capability.encoded(checkpoint.tokenizer)
            check_same_ids(encoded.encoded, theirs.encoded.pairs, checkpoint.role)
        return encoded

    def _read(self, plan: _Planned, anatomy: Anatomy, role: str) -> None:
        assert plan.capability is not None
        assert plan.foreign is not None
        _check_heads(plan.spec, anatomy)
        check_length(anatomy, plan.capability)
        self._check_sums(role, anatomy, plan.capability)
        with memory_errors(f"reading {role} for circuit {plan.spec.name}"):
            wanted = sorted({*plan.spec.heads, *_everything(plan.spec, anatomy)})
            plan.foreign[role] = capture_heads(
                anatomy, plan.capability, wanted, vocabulary=self._vocabulary
            )

    def _measure(self, plan: _Planned) -> Measurement:
        spec, capability = plan.spec, plan.capability
        assert capability is not None
        assert plan.foreign is not None
        if not spec.heads:
            return self._behaviour_alone(capability, plan)
        with memory_errors(f"patching circuit {spec.name}"), self._pair.base.open() as model:
            anatomy = locate(model)
            self._check_sums("base", anatomy, capability)
            batch = capability.batches[0]
            rows = slice(0, 2)
            check_patching(
                anatomy,
                batch.clean[rows],
                batch.counterfactual[rows],
                batch.positions,
                spec.heads,
                start=batch.start,
            )
            self._read_own(anatomy)
            drops = patched_drops(
                anatomy,
                capability,
                spec.heads,
                plan.foreign,
                everything=_everything(spec, anatomy),
                site=spec.site,
                vocabulary=self._vocabulary,
                progress=lambda done, total: self._report(f"patching {spec.name}", done, total),
            )
        measurement = as_measurement(capability, drops, plan.foreign)
        return replace(measurement, notes=plan.notes + measurement.notes)

    def _behaviour_alone(self, capability: EncodedCapability, plan: _Planned) -> Measurement:
        """What there is to judge where no circuit was found."""
        assert plan.foreign is not None
        with self._pair.base.open() as model:
            base = behaviour(locate(model), capability, vocabulary=self._vocabulary)
        tuned = plan.foreign["tuned"].behaviour
        return Measurement(
            pairs=tuple(pair.pair for pair in capability.encoded.pairs),
            base_readout=base.readout,
            tuned_readout=tuned.readout,
            base_correct=base.correct,
            tuned_correct=tuned.correct,
            dropped=capability.encoded.n_dropped,
            notes=plan.notes + _pair_notes(capability.encoded),
        )

    def _layers(self) -> list[int]:
        """Every layer that a circuit which can be measured has heads in."""
        plans = [plan for plan in self._plans.values() if plan.failed is None]
        return sorted({head.layer for plan in plans for head in heads_of(plan.spec.heads)})

    def _read_own(self, anatomy: Anatomy) -> None:
        """Read every circuit's own damage as soon as the base is open, so that the other models'
        attention need not be kept beside the waves."""
        for role, attention in self._attention.items():
            for plan in self._plans.values():
                if plan.failed is None and plan.foreign is not None and plan.capability is not None:
                    heads = heads_of(plan.spec.heads)
                    own = own_heads(anatomy, plan.capability, heads, attention)
                    plan.foreign[role] = replace(plan.foreign[role], own=own)
        self._attention.clear()

    def _check_sums(self, role: str, anatomy: Anatomy, capability: EncodedCapability) -> None:
        if role not in self._summed:
            check_sums(anatomy, capability.batches[0].clean[:1])
            self._summed.add(role)

    def _report(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


def as_capability(spec: CircuitSpec) -> Capability:
    """The capability that a circuit file declares."""
    pairs: dict[str, Any]
    if isinstance(spec.pairs, TaskPairs):
        pairs = {"task": spec.pairs.task, "count": spec.pairs.count, "seed": spec.pairs.seed}
    elif isinstance(spec.pairs, InlinePairs):
        pairs = {"pairs": spec.pairs.pairs}
    else:
        pairs = {"pairs": spec.pairs.pairs[: spec.pairs.count]}
    return Capability(
        name=spec.capability, readout=spec.readout, chat_template=spec.chat_template, **pairs
    )


# Pairs of a task that a circuit is found with; half of them rank, half cut the ranking.
_DISCOVERY_PAIRS = 128
_DISCOVERY_SEED = 1_000_003  # added to the gate's, so that other pairs are drawn


def discovery_pairs(spec: CircuitSpec) -> tuple[Capability, tuple[str, ...]]:
    """The pairs that `circuit: auto` is found with, and what a reader of the verdict should know.

    A task draws others than those that are gated on; given pairs have to serve for both.
    """
    capability = as_capability(spec)
    if isinstance(spec.pairs, TaskPairs):
        count = max(_DISCOVERY_PAIRS, spec.pairs.count)
        return replace(capability, count=count, seed=spec.pairs.seed + _DISCOVERY_SEED), ()
    return capability, ("the circuit was found on the prompt pairs that it is gated on",)


def auto_note(found: Found) -> str:
    """One line on what `circuit: auto` stands for in a verdict."""
    names = ", ".join(map(str, found.circuit))
    return (
        f"circuit: auto is {names} ({found.ranking.method}; {len(found.circuit)} of "
        f"{found.curve.members} heads, faithfulness {found.faithfulness:.2f} on "
        f"{found.curve.pairs} held-out pairs)"
    )


def shared_vocabulary(pair: ModelPair) -> int | None:
    """The number of token ids that every model of the pair has logits for; None when not known.

    Fine-tuning may have added rows to the vocabulary; they are left out of every comparison.
    """
    sizes = []
    for checkpoint in pair.checkpoints:
        if checkpoint.spec.kind != "adapter":
            config = full_config(localise(checkpoint.spec, pair.options, weights=False))
            sizes.append(config.get("vocab_size"))
    known = [size for size in sizes if isinstance(size, int)]
    return min(known) if known and len(known) == len(sizes) else None


def as_measurement(
    capability: EncodedCapability, drops: PatchedDrops, foreign: dict[str, ForeignHeads]
) -> Measurement:
    """The arrays that limits are decided on."""
    tuned = foreign["tuned"].behaviour
    damage = drops.damage["tuned"]
    reference: Drops | None = drops.damage.get("reference")
    encoded = capability.encoded
    return Measurement(
        pairs=tuple(pair.pair for pair in encoded.pairs),
        base_readout=drops.base.readout,
        tuned_readout=tuned.readout,
        base_correct=drops.base.correct,
        tuned_correct=tuned.correct,
        circuit_importance=drops.importance.circuit,
        circuit_damage=damage.circuit,
        head_importance=drops.importance.heads,
        head_damage=damage.heads,
        head_own_damage=drops.own["tuned"],
        all_importance=drops.importance.everything,
        all_damage=damage.everything,
        reference_circuit_damage=None if reference is None else reference.circuit,
        reference_head_damage={} if reference is None else reference.heads,
        dropped=encoded.n_dropped,
        notes=_pair_notes(encoded),
    )


def _pair_notes(encoded: Encoded) -> tuple[str, ...]:
    """What became of the pairs that were asked for."""
    notes = [f"dropped {n}: {why}" for why, n in sorted(encoded.dropped.items())]
    if encoded.asked is not None and len(encoded.pairs) < encoded.asked:
        notes.append(f"only {len(encoded.pairs)} of the {encoded.asked} pairs asked for exist")
    return tuple(notes)


def _everything(spec: CircuitSpec, anatomy: Anatomy) -> tuple[Member, ...]:
    """Every head of the model, where a limit asks what they lose together."""
    return anatomy.heads if any(limit.needs_all_heads for limit in spec.limits) else ()


def _check_heads(spec: CircuitSpec, anatomy: Anatomy) -> None:
    fewest = min(site.n_heads for site in anatomy.sites if site is not None)
    check_heads(spec, anatomy.n_layers, fewest)
    anatomy.check(spec.heads)
