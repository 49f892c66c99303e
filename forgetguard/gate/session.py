"""Measures circuits on the checkpoints of a pair, once each, and judges their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetguard.anatomy.locate import Anatomy, AttentionSite, locate
from forgetguard.anatomy.members import Member, heads_of
from forgetguard.cache_folder import cache_folder
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import Encoded, check_same_ids
from forgetguard.checkpoints.described import full_config
from forgetguard.checkpoints.local import localise
from forgetguard.discovery.circuit import Found
from forgetguard.discovery.on_checkpoint import Search, discover_on
from forgetguard.errors import BaseCannotError, SpecificationError
from forgetguard.gate import decision
from forgetguard.gate.baseline import Baseline, attach, check_recorded
from forgetguard.gate.looks import Looks, as_capability, looks_of
from forgetguard.gate.measurement import Control, Measurement, joined
from forgetguard.gate.resampling import derive_seed
from forgetguard.gate.schema import (
    CircuitSpec,
    Limit,
    TaskPairs,
    check_baseline,
    check_heads,
    check_names,
    check_reference,
)
from forgetguard.gate.suitability import check_fits
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.behaviour import behaviour, check_length
from forgetguard.measures.other_heads import OtherHeads, damage_of, other_circuit, random_sets
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
_TUNED = "tuned"


@dataclass(slots=True)
class _Part:
    """The pairs that one look adds; those of a fixed count are one part."""

    capability: EncodedCapability
    foreign: dict[str, ForeignHeads] = field(default_factory=dict)
    measurement: Measurement | None = None


@dataclass(slots=True)
class _Planned:
    """A circuit on its way to being measured; `failed` is what stopped it, for it alone."""

    spec: CircuitSpec
    looks: Looks | None = None  # at its pairs, once they are encoded
    parts: list[_Part] = field(default_factory=list)
    others: tuple[OtherHeads, ...] = ()  # to be patched beside it
    by_look: list[Measurement] = field(default_factory=list)  # each with all pairs up to it
    failed: Exception | None = None
    notes: tuple[str, ...] = ()


class GateSession:
    """Circuits of one base, measured on demand.

    The first measurement opens the tuned model (and the reference) once and captures from it the
    heads of every circuit; after that only the base is needed. So two models never need to be in
    memory together, and none is loaded twice. What is wrong with one circuit (its prompts do not
    suit the tokenizer, say) is raised for that circuit only.

    Where a circuit file gives `most`, the other models are read on all those pairs at once, which
    is cheap, and the base is patched look by look until the limit that is asked for is decided.
    Each limit has the verdict of its own first deciding look, so it depends on no other limit.

    Args:
        family: the number of limits of the whole run, which share its false-alarm rate.
        controls: how many random sets of heads are patched beside each circuit, and with them the
            other circuits of the session; 0 for none of both.

    Raises:
        SpecificationError: two circuits share a name, or a limit needs a reference or a baseline
            that is not there (a baseline that is `recording` may lack it), or `family` or
            `controls` is no such number.
    """

    def __init__(
        self,
        pair: ModelPair,
        circuits: Sequence[CircuitSpec],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        cache: Path | None = None,
        baseline: Baseline | None = None,
        recording: bool = False,
        family: int = 1,
        controls: int = 0,
    ) -> None:
        if family < 1 or controls < 0:
            raise SpecificationError(
                f"a run has at least 1 limit and no fewer than 0 controls, got family={family} and "
                f"controls={controls}"
            )
        check_names(circuits)
        if pair.reference is None:
            check_reference(circuits)
        if baseline is None and not recording:
            check_baseline(circuits)
        self._baseline = baseline
        if any(spec.auto for spec in circuits) and cache is None:
            cache = cache_folder()
        self._cache = cache
        self._pair, self._seed, self._progress = pair, seed, progress
        self._family, self._controls = family, controls
        self._recording = recording
        self._plans = {spec.name: _Planned(spec) for spec in circuits}
        self._captured = False
        self._failed: Exception | None = None
        self._summed: set[str] = set()
        self._vocabulary: int | None = None
        self._attention: dict[str, dict[int, AttentionSite]] = {}  # by role and layer

    def judge(self, circuit: CircuitSpec, limit: Limit, *, own: int = 1) -> Verdict:
        """Measure the circuit, as far as needed and not yet done, and decide one of its limits.

        Args:
            own: how many limits share the place of one in the run's family: those that a gate
                written in Python judges.

        Raises:
            ForgetguardError: the circuit cannot be measured; the message says why.
        """
        plan = self._ready(circuit)
        look = 0
        while True:
            measurement = self._up_to(plan, look)
            # plan.spec has the heads that `circuit: auto` stands for.
            verdict = decision.judge(
                plan.spec, limit, measurement, seed=self._seed, family=self._family * own
            )
            look += 1
            if verdict.outcome is not Outcome.ABSTAIN or look == len(plan.parts):
                break
        if self._recording:  # a later run may draw them all
            self._up_to(plan, len(plan.parts) - 1)
        return verdict

    def measurement(self, circuit: CircuitSpec) -> Measurement:
        """The circuit's numbers, pair by pair (raises ForgetguardError); where pairs are drawn look
        by look, those of the first, and of the last while recording."""
        plan = self._ready(circuit)
        return self._up_to(plan, len(plan.parts) - 1 if self._recording else 0)

    def _ready(self, circuit: CircuitSpec) -> _Planned:
        """The circuit with everything that it needs from the other models."""
        if self._failed is not None:  # loading gigabytes again would fail again
            raise self._failed
        if not self._captured:
            try:
                self._capture()
            except Exception as error:
                self._failed = error
                raise
        plan = self._plans[circuit.name]
        if plan.failed is not None:
            raise plan.failed
        return plan

    def _up_to(self, plan: _Planned, look: int) -> Measurement:
        """The measurement at a look, counted from 0; what is missing for it is measured."""
        while len(plan.by_look) <= look:
            with self._blame(plan):
                part = plan.parts[len(plan.by_look)]
                part.measurement = self._measure(plan, part)
                parts = [one.measurement for one in plan.parts if one.measurement is not None]
                plan.by_look.append(self._beside_baseline(plan.spec, joined(parts)))
            if plan.failed is not None:
                raise plan.failed
        return plan.by_look[look]

    def measured(self, circuit: CircuitSpec) -> tuple[CircuitSpec, Measurement] | None:
        """The circuit with the heads that it was measured with, and its numbers on all pairs that
        were measured so far; None where they are not there (yet). Measures nothing."""
        plan = self._plans.get(circuit.name)
        if plan is None or not plan.by_look or plan.failed is not None:
            return None
        return plan.spec, plan.by_look[-1]

    def close(self) -> None:
        """Free the models and what was captured from them."""
        self._pair.close()
        self._plans.clear()

    @contextmanager
    def _blame(self, plan: _Planned) -> Iterator[None]:
        """Keep an error of one circuit for the limits of that circuit. A defect (an exception that
        is no ForgetguardError) too: the other circuits still get their verdicts."""
        try:
            yield
        except Exception as error:
            plan.failed = error

    def _others(self) -> list[Checkpoint]:
        return [checkpoint for checkpoint in self._pair.checkpoints if checkpoint.role != "base"]

    def _capture(self) -> None:
        """Encode every circuit's prompts; read its heads from every model but the base."""
        self._vocabulary = shared_vocabulary(self._pair)
        for plan in self._plans.values():
            with self._blame(plan):
                plan.looks = looks_of(plan.spec, self._encode(plan.spec))
                plan.parts = [_Part(capability) for capability in plan.looks.parts]
        self._discover()
        self._check_baseline()
        for checkpoint in self._others():
            with checkpoint.open() as model:
                anatomy = locate(model)
                self._choose_others(anatomy)
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

    def _check_baseline(self) -> None:
        """Find out before hours of patching that a circuit is not what the baseline recorded."""
        if self._baseline is None:
            return
        base = asdict(self._pair.base.fingerprint)
        for plan in self._plans.values():
            if plan.failed is None and plan.looks is not None:
                with self._blame(plan):
                    pairs = [pair.pair for pair in plan.looks.whole.encoded.pairs]
                    check_recorded(plan.spec, pairs, self._baseline, base)

    def _encode(self, spec: CircuitSpec) -> EncodedCapability:
        capability = as_capability(spec)
        encoded = capability.encoded(self._pair.base.tokenizer)
        for checkpoint in self._others():
            theirs = capability.encoded(checkpoint.tokenizer)
            check_same_ids(encoded.encoded, theirs.encoded.pairs, checkpoint.role)
        return encoded

    def _choose_others(self, anatomy: Anatomy) -> None:
        """Choose what is patched beside each circuit; every model of the pair has these members."""
        for plan in self._plans.values():
            if plan.failed is None:
                with self._blame(plan):
                    check_base(plan.spec, self._pair.base)
                    _check_heads(plan.spec, anatomy)
        sound = {
            name: plan.spec
            for name, plan in sorted(self._plans.items())
            if plan.failed is None and plan.spec.heads
        }
        for name, spec in sound.items():
            if self._controls:
                random = random_sets(
                    spec.heads,
                    anatomy.members(mlps=True),
                    self._controls,
                    seed=derive_seed(self._seed, name, "controls"),
                )
                self._plans[name].others = random + tuple(
                    other_circuit(other, one.heads, spec.heads)
                    for other, one in sound.items()
                    if other != name
                )

    def _read(self, plan: _Planned, anatomy: Anatomy, role: str) -> None:
        assert plan.looks is not None
        check_length(anatomy, plan.looks.whole)
        self._check_sums(role, anatomy, plan.looks.whole)
        wanted = {*plan.spec.heads, *_everything(plan.spec, anatomy)}
        if role == _TUNED:
            wanted |= {member for other in plan.others for member in other.members}
        with memory_errors(f"reading {role} for circuit {plan.spec.name}"):
            for part in plan.parts:
                part.foreign[role] = capture_heads(
                    anatomy, part.capability, sorted(wanted), vocabulary=self._vocabulary
                )

    def _measure(self, plan: _Planned, part: _Part) -> Measurement:
        """Patch the base on the pairs of one part."""
        assert plan.looks is not None
        spec = plan.spec
        found = self._patched(plan, part) if spec.heads else self._behaviour_alone(part)
        notes = self._pair.notes + plan.notes + _pair_notes(plan.looks.whole.encoded)
        return replace(found, looks=plan.looks.counts, notes=notes)

    def _patched(self, plan: _Planned, part: _Part) -> Measurement:
        spec, capability = plan.spec, part.capability
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
                part.foreign,
                everything=_everything(spec, anatomy),
                site=spec.site,
                vocabulary=self._vocabulary,
                progress=lambda done, total: self._report(f"patching {spec.name}", done, total),
            )
            controls = self._patched_others(plan, part, anatomy)
        return replace(as_measurement(capability, drops, part.foreign), controls=controls)

    def _patched_others(self, plan: _Planned, part: _Part, anatomy: Anatomy) -> tuple[Control, ...]:
        """What the controls cost on the circuit's own pairs."""
        chosen = [other for other in plan.others if other.members]
        damage = iter(
            damage_of(
                anatomy,
                part.capability,
                [other.members for other in chosen],
                part.foreign[_TUNED],
                site=plan.spec.site,
                vocabulary=self._vocabulary,
            )
            if chosen
            else []
        )
        return tuple(
            Control(one.name, one.members, next(damage) if one.members else None, one.note)
            for one in plan.others
        )

    def _behaviour_alone(self, part: _Part) -> Measurement:
        """What there is to judge where no circuit was found."""
        capability = part.capability
        with self._pair.base.open() as model:
            base = behaviour(locate(model), capability, vocabulary=self._vocabulary)
        tuned = part.foreign[_TUNED].behaviour
        return Measurement(
            pairs=tuple(pair.pair for pair in capability.encoded.pairs),
            base_readout=base.readout,
            tuned_readout=tuned.readout,
            base_correct=base.correct,
            tuned_correct=tuned.correct,
            dropped=capability.encoded.n_dropped,
        )

    def _beside_baseline(self, spec: CircuitSpec, measurement: Measurement) -> Measurement:
        """The measurement with what the baseline recorded on the same pairs, where there is one."""
        if self._baseline is None:
            return measurement
        base = asdict(self._pair.base.fingerprint)
        return attach(spec, measurement, self._baseline, base)

    def _layers(self) -> list[int]:
        """Every layer that a circuit which can be measured has heads in."""
        plans = [plan for plan in self._plans.values() if plan.failed is None]
        return sorted({head.layer for plan in plans for head in heads_of(plan.spec.heads)})

    def _read_own(self, anatomy: Anatomy) -> None:
        """Read every circuit's own damage as soon as the base is open, so that the other models'
        attention need not be kept beside the waves."""
        for role, attention in self._attention.items():
            for plan in self._plans.values():
                if plan.failed is None:
                    with self._blame(plan):
                        for part in plan.parts:
                            heads = heads_of(plan.spec.heads)
                            own = own_heads(anatomy, part.capability, heads, attention)
                            part.foreign[role] = replace(part.foreign[role], own=own)
        self._attention.clear()

    def _check_sums(self, role: str, anatomy: Anatomy, capability: EncodedCapability) -> None:
        if role not in self._summed:
            check_sums(anatomy, capability.batches[0].clean[:1])
            self._summed.add(role)

    def _report(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


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


def check_base(spec: CircuitSpec, base: Checkpoint) -> None:
    """Raises SpecificationError where the circuit says that it was found in another base."""
    if spec.fits is not None:
        local = localise(base.spec, base.options, weights=False)
        check_fits(spec, full_config(local), lambda: base.fingerprint.weights)


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
