"""Measures gate files on the checkpoints of a pair, once each, and judges their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head, Member, heads_of
from forgetguard.cache_folder import cache_folder, is_off
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import FEWEST_PAIRS
from forgetguard.checkpoints.described import full_config
from forgetguard.checkpoints.local import localise
from forgetguard.discovery.circuit import Found
from forgetguard.discovery.on_checkpoint import Search, check, discover_on
from forgetguard.errors import (
    BaseCannotError,
    ForgetguardError,
    MeasurementError,
    SpecificationError,
)
from forgetguard.gate import rule
from forgetguard.gate.baseline import Baseline, attach, check_recorded
from forgetguard.gate.declaration import FilePairs, GateSpec, Limit, TaskPairs, carrying
from forgetguard.gate.kept import Kept, make_room
from forgetguard.gate.prompt_files import pair_texts
from forgetguard.gate.resampling import derive_seed
from forgetguard.gate.runner import (
    OtherReading,
    capability_of,
    checked,
    guarded,
    measures_of,
    read_base,
    read_behaviour,
    read_members,
    read_other,
    reads_pairs,
)
from forgetguard.gate.same_function import apart, may_be_equal
from forgetguard.gate.stages import (
    NO_UNITS,
    Part,
    Stages,
    as_capability,
    encode,
    part_notes,
    prompt_notes,
)
from forgetguard.gate.suitability import (
    check_fits,
    check_given,
    check_heads,
    check_names,
)
from forgetguard.gate.verdict import Verdict
from forgetguard.measures.behaviour import check_length, counterfactual_readout
from forgetguard.measures.documents import EvalTasks
from forgetguard.measures.matching import matched_heads
from forgetguard.measures.measure import Estimator, Measure
from forgetguard.measures.origin import Origin, origin
from forgetguard.measures.other_heads import OtherHeads, other_circuit, random_sets
from forgetguard.measures.own_damage import Detached, detach_attention
from forgetguard.measures.samples import (
    BASE,
    COUNTERFACTUAL,
    DAMAGE,
    SAID,
    TUNED,
    WHOLE,
    FloatArray,
    Key,
    Note,
    Samples,
    Unit,
    joined,
)
from forgetguard.measures.vulnerability import patched
from forgetguard.patching.budget import memory_errors
from forgetguard.patching.selfcheck import check_patching, check_sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from forgetguard.checkpoints.placement import Checkpoint, ModelPair

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(slots=True)
class _Planned:
    """A gate file on its way to being measured; `failed` is what stopped it, for it alone, and
    `unmeasured` what stopped single measures of it, by key."""

    spec: GateSpec
    stages: Stages = NO_UNITS  # until its prompts are encoded
    readings: list[dict[str, OtherReading]] = field(default_factory=list)  # by part, by role
    others: tuple[OtherHeads, ...] = ()  # to be patched beside it
    parts: list[Samples] = field(default_factory=list)  # those that were measured
    located: int = 0  # how many of them hold every member alone, and own damage
    exact: dict[Key, float] = field(default_factory=dict)
    by_stage: dict[int, Samples] = field(default_factory=dict)  # of all that, up to a stage
    failed: Exception | None = None
    unmeasured: dict[str, ForgetguardError] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def whole(self) -> Part:
        return self.stages.whole

    @property
    def pairs(self) -> EncodedCapability | None:
        """Its prompt pairs, where it gives some."""
        return self.whole.pairs

    @property
    def layers(self) -> set[int]:
        """Those that have a head of its circuit."""
        return {head.layer for head in heads_of(self.spec.members)}


class GateSession:
    """Gate files on one base, measured on demand.

    The first measurement opens the tuned model (and the reference) once and reads from it what
    every file needs; after that only the base is needed. So two models never need to be in memory
    together, and none is loaded twice, but where more pairs are drawn, and where parts of one have
    other names than in the base (gate/same_function.py). What is wrong with one file (its prompts
    do not suit the tokenizer, say) is raised for that file only, and what one measure cannot do for
    its limits.

    What passes needs no more than the whole circuit and the members that are judged one by one. For
    a file with a limit that fails, or that is undecided on the first pairs for good, every member
    is patched alone, and own damage read, so that the verdict says where.

    Where a file gives `most`, all models are read stage by stage until the limit that is asked for
    is decided, or any that the file declares has failed. That is worked out from all of them, so a
    verdict depends on no order. The other models are opened once for a stage, for all files that
    are then undecided.

    Args:
        family: the number of limits of the whole run, which share its false-alarm rate.
        limits: the declared limits among those of the family, of other files than `circuits` too:
            those that nothing can be said of (the base cannot do the capability, prompts do not
            suit the tokenizer, no circuit was found) leave it, before anything is judged.
        keep: keep what depends on the base alone in the cache folder, and take up what is there.
        controls: how many random sets of heads are patched beside each circuit, and with them the
            other circuits of the session; 0 for none of both.

    Raises:
        SpecificationError: two files share a name, or a limit needs a reference or a baseline
            that is not there (a baseline that is `recording` may lack it), or `family` or
            `controls` is no such number.
    """

    def __init__(
        self,
        pair: ModelPair,
        circuits: Sequence[GateSpec],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        cache: Path | None = None,
        baseline: Baseline | None = None,
        recording: bool = False,
        family: int = 1,
        limits: Sequence[tuple[GateSpec, Limit]] = (),
        controls: int = 0,
        keep: bool = False,
    ) -> None:
        if family < 1 or controls < 0:
            raise SpecificationError(
                f"a run has at least 1 limit and no fewer than 0 controls, got family={family} and "
                f"controls={controls}"
            )
        check_names(circuits)
        recorded = baseline is not None or recording
        check_given(circuits, reference=pair.reference is not None, baseline=recorded)
        self._baseline = baseline
        if cache is None and not is_off() and (keep or any(spec.auto for spec in circuits)):
            cache = cache_folder()
        self._cache, self._keep = cache, keep
        self._pair, self._seed, self._progress = pair, seed, progress
        self._family, self._controls = family, controls
        self._limits: tuple[tuple[GateSpec, Limit], ...] = tuple(limits) if family > 1 else ()
        self._recording = recording
        self._plans = {spec.name: _Planned(spec) for spec in circuits}
        self._read_all = False
        self._failed: Exception | None = None
        self._summed: set[str] = set()
        self._searched = False  # whether every head of the base was checked, to look for circuits
        # By role: the attention of all circuits' layers, for own damage, and heads that have moved.
        self._attention: dict[str, dict[int, Detached]] = {}
        self._matched: dict[str, dict[Head, Head]] = {}
        self._patched: ForgetguardError | bool | None = None  # what the check of patching said

    def judge(self, circuit: GateSpec, limit: Limit, *, own: int = 1) -> Verdict:
        """Measure the gate file, as far as needed and not yet done, and decide one of its limits.

        Args:
            own: how many limits share the place of one in the run's family: those that a gate
                written in Python judges.

        Raises:
            ForgetguardError: it cannot be measured; the message says why.
        """
        plan = self._ready(circuit)
        self._exact(plan, limit.measure)
        seed, family = self._seed, self._family_left() * own
        # plan.spec has the heads that `circuit: auto` stands for.
        judge = partial(rule.judge, plan.spec, limit, seed=seed, family=family)
        last = len(plan.readings) - 1
        for stage in range(last + 1):
            samples = self._up_to(plan, stage)
            self._check_measured(plan, limit)
            verdict = judge(samples)
            if stage == last or rule.stands(plan.spec, samples, verdict, seed=seed, family=family):
                break
        if rule.is_located(verdict, samples):
            verdict = judge(self._up_to(plan, stage, located=True))
        if self._recording:  # a later run may draw them all
            self._up_to(plan, last, located=True)
        return verdict

    def measurement(self, circuit: GateSpec) -> Samples:
        """What was read of the gate file; where pairs are drawn stage by stage, that of the first,
        and of the last while recording.

        Raises:
            ForgetguardError: it cannot be measured, or the measure of one of its limits failed.
        """
        plan = self._ready(circuit)
        for limit in plan.spec.limits:
            self._exact(plan, limit.measure)
        last = len(plan.readings) - 1
        found = self._up_to(plan, last if self._recording else 0, located=True)
        for limit in plan.spec.limits:
            self._check_measured(plan, limit)
        return found

    def _ready(self, circuit: GateSpec) -> _Planned:
        """The gate file with everything that it needs from the other models."""
        if self._failed is not None:  # loading gigabytes again would fail again
            raise self._failed
        if not self._read_all:
            try:
                self._read_others()
            except Exception as error:
                self._failed = error
                raise
        plan = self._plans[circuit.name]
        if plan.failed is not None:
            raise plan.failed
        return plan

    def _up_to(self, plan: _Planned, stage: int, *, located: bool = False) -> Samples:
        """The samples at a stage, counted from 0; what is missing for it is measured. `located`:
        with every member alone."""
        with self._blame(plan):
            while plan.failed is None and len(plan.parts) <= stage:
                self._read_further(plan, len(plan.parts))
                plan.parts.append(self._measure(plan, len(plan.parts)))
                plan.by_stage.clear()
            wanted = plan.spec.members and (located or plan.located)
            for part in plan.parts[plan.located :] if wanted else ():
                plan.parts[plan.located] = part.with_arrays(self._members(plan, plan.located))
                plan.located += 1
                plan.by_stage.clear()
            if plan.failed is None:
                return self._samples(plan, stage)
        assert plan.failed is not None
        raise plan.failed

    def _samples(self, plan: _Planned, stage: int) -> Samples:
        """All that was read so far of the parts up to a stage, beside what the baseline recorded of
        the same units; the same object until more is read."""
        if stage not in plan.by_stage:
            found = joined(plan.parts[: stage + 1])
            if self._baseline is not None:
                base = asdict(self._pair.base.fingerprint)
                found = attach(plan.spec, found, self._baseline, base)
            plan.by_stage[stage] = replace(found, exact={**found.exact, **plan.exact})
        return plan.by_stage[stage]

    def measured(self, circuit: GateSpec) -> tuple[GateSpec, Samples] | None:
        """The gate file with the heads that it was measured with, and what was read on all units
        that were measured so far; None where that is not there (yet). Measures nothing."""
        plan = self._plans.get(circuit.name)
        if plan is None or not plan.parts or plan.failed is not None:
            return None
        return plan.spec, self._samples(plan, len(plan.parts) - 1)

    def origin(self, circuit: GateSpec) -> Origin | None:
        """Which parts of the checkpoint carry what tuned lost of the file's capability, on its
        first pairs; None where it has none.

        Raises:
            ForgetguardError: it cannot be measured.
        """
        plan = self._ready(circuit)
        if plan.pairs is None:
            return None
        return origin(
            self._pair,
            capability_of(plan.stages.parts[0]),
            seed=self._seed,
            progress=partial(self._report, f"looking for the origin of the loss in {circuit.name}"),
        )

    def close(self) -> None:
        """Free the models and what was captured from them."""
        self._pair.close()
        self._plans.clear()
        self._attention.clear()
        if self._keep and self._cache is not None:
            make_room(self._cache)

    @contextmanager
    def _blame(self, plan: _Planned) -> Iterator[None]:
        """Keep an error of one file for the limits of that file. A defect (an exception that is no
        ForgetguardError) too: the other files still get their verdicts."""
        try:
            yield
        except Exception as error:
            plan.failed = error

    def _others(self) -> list[Checkpoint]:
        return [checkpoint for checkpoint in self._pair.checkpoints if checkpoint.role != "base"]

    def _sound(self) -> list[_Planned]:
        return [plan for plan in self._plans.values() if plan.failed is None]

    # --- the other models --------------------------------------------------------------------

    def _read_others(self) -> None:
        """Encode every file's prompts; read what it needs from every model but the base."""
        self._report("encoding prompts", 0, 1)
        for plan in self._sound():
            with self._blame(plan):
                plan.stages = self._drawn(plan)
                plan.readings = [{} for _ in plan.stages.parts]
        self._discover()
        if self._baseline is not None:  # before hours of patching
            base = asdict(self._pair.base.fingerprint)
            for plan in self._sound():
                with self._blame(plan):
                    check_recorded(plan.spec, plan.whole.units, self._baseline, base)
        if any(plan.whole.units for plan in self._sound()):
            for checkpoint in self._others():
                self._read_one(checkpoint)
            self._match_heads()
        self._read_all = True

    def _drawn(self, plan: _Planned) -> Stages:
        """What a file is measured on. What lm-eval cannot do stops the limits on its tasks, and no
        others of the file."""
        try:
            return encode(plan.spec, self._pair)
        except MeasurementError as error:
            if not isinstance(plan.spec.pairs, EvalTasks):
                raise
            for measure in measures_of(plan.spec):
                if measure.needs_prompts:
                    plan.unmeasured[measure.key] = error
            return NO_UNITS

    def _read_one(self, checkpoint: Checkpoint) -> None:
        self._report(f"opening {checkpoint.role}", 0, 1)
        with checkpoint.open() as model:
            anatomy = locate(model)
            self._choose_others(anatomy)
            plans = [plan for plan in self._sound() if plan.whole.units]
            self._read(plans, 0, anatomy, checkpoint.role)
            layers = {layer for plan in self._sound() for layer in plan.layers}
            self._attention[checkpoint.role] = detach_attention(anatomy, sorted(layers))

    def _match_heads(self) -> None:
        """Where heads of another model were put into another order, read it again under the names
        that their work has in the base."""
        plans = [plan for plan in self._sound() if plan.pairs is not None and plan.whole.units]
        if not plans or not any(self._attention.values()):
            return
        with self._blame(plans[0]), self._pair.base.open() as model:
            anatomy, batch = locate(model), capability_of(plans[0].whole).batches[0]
            self._check_prompts("base", anatomy, plans[0])
            self._matched = {
                role: matched_heads(anatomy, batch, its) for role, its in self._attention.items()
            }
        for checkpoint in self._others():
            role = checkpoint.role
            if self._matched.get(role):
                with checkpoint.open() as model:
                    self._read_matched(locate(model), role)

    def _read_matched(self, anatomy: Anatomy, role: str) -> None:
        matched = self._matched[role]
        for plan in self._sound():
            heads = [one for one in heads_of(plan.spec.members) if one in matched]
            if heads:
                moved = {str(one): str(matched[one]) for one in heads}
                plan.notes += (Note("heads_matched", {"role": role, "heads": moved}),)
        again = [plan for plan in self._sound() if self._moved(plan, role) is not None]
        self._read(again, 0, anatomy, role)

    def _read_further(self, asked: _Planned, number: int) -> None:
        """Read the other models on the pairs that a stage adds: of the file that is asked for, and
        of all that the stage before has left undecided, so that they are opened once."""
        if asked.readings[number] or not asked.whole.units:
            return
        for plan in self._sound():
            with self._blame(plan):
                while 0 < len(plan.parts) < number and self._goes_on(plan, len(plan.parts)):
                    self._up_to(plan, len(plan.parts))
        plans = [plan for plan in self._sound() if plan is asked or self._goes_on(plan, number)]
        for checkpoint in self._others():
            with checkpoint.open() as model:
                self._read(plans, number, locate(model), checkpoint.role)

    def _goes_on(self, plan: _Planned, number: int) -> bool:
        """Whether a limit of a file is undecided before a stage that was not measured yet."""
        if len(plan.parts) != number or len(plan.readings) <= number:
            return False
        if self._recording:
            return True
        samples = self._samples(plan, number - 1)
        return rule.goes_on(plan.spec, samples, seed=self._seed, family=self._family)

    def _discover(self) -> None:
        """Find the circuits of `circuit: auto` in the base, or take them from the cache."""
        wanted = [plan for plan in self._sound() if plan.spec.auto]
        for plan in wanted:
            with self._blame(plan):
                capability, on = discovery_pairs(plan.spec, plan.whole.units)
                try:
                    found = discover_on(
                        self._pair.base,
                        capability,
                        Search(exact_within=_EXACT_WITHIN / len(wanted), coarse=True),
                        keep=self._cache is not None,
                        cache=self._cache,
                        progress=self._progress,
                        checks=self._check_search,
                    )
                except BaseCannotError as error:
                    plan.notes = (Note("not_looked_for", {"why": str(error)}),)
                    continue
                scores = {str(one): score for one, score in found.ranking.scores.items()}
                alone = plan.spec.one_by_one or carrying(found.circuit, scores, found.curve.whole)
                plan.spec = replace(plan.spec, members=found.circuit, one_by_one=alone)
                plan.notes = auto_notes(found, on)

    def _choose_others(self, anatomy: Anatomy) -> None:
        """Choose what is patched beside each circuit; every model of the pair has these members."""
        for plan in self._sound():
            with self._blame(plan):
                check_base(plan.spec, self._pair.base)
                fewest = min(site.n_heads for site in anatomy.sites if site is not None)
                check_heads(plan.spec, anatomy.n_layers, fewest)
                anatomy.check(plan.spec.members)
        plans = [plan for plan in self._sound() if plan.spec.members] if self._controls else []
        for plan in plans:
            name, members = plan.spec.name, plan.spec.members
            seed = derive_seed(self._seed, name, "controls")
            everything = anatomy.members(mlps=True)
            plan.others = random_sets(members, everything, self._controls, seed=seed) + tuple(
                other_circuit(one.spec.name, one.spec.members, members)
                for one in sorted(plans, key=lambda one: one.spec.name)
                if one is not plan
            )

    def _read(self, plans: Sequence[_Planned], number: int, anatomy: Anatomy, role: str) -> None:
        """Read an open model on one part of each file."""
        for done, plan in enumerate(plans):
            self._report(f"reading {role}", done, len(plans))
            also = [member for other in plan.others for member in other.members] * (role == TUNED)
            with self._blame(plan), memory_errors(f"reading {role} for circuit {plan.spec.name}"):
                self._check_prompts(role, anatomy, plan)
                plan.readings[number][role] = read_other(
                    anatomy,
                    plan.spec,
                    plan.stages.parts[number],
                    role,
                    also=also,
                    matched=self._moved(plan, role),
                )

    def _moved(self, plan: _Planned, role: str) -> dict[Head, Head] | None:
        """The heads of another model that stand for the base's, where any is read for this file."""
        matched = self._matched.get(role, {})
        members = [*plan.spec.members, *(member for one in plan.others for member in one.members)]
        return None if matched.keys().isdisjoint(heads_of(members)) else matched

    # --- the base ----------------------------------------------------------------------------

    def _measure(self, plan: _Planned, number: int) -> Samples:
        """Read the base on one part."""
        part, spec = plan.stages.parts[number], plan.spec
        if not part.units:
            return Samples((), {}, notes=plan.notes)
        if BASE not in self._summed:
            self._report("opening base", 0, 1)
        with memory_errors(f"patching circuit {spec.name}"), self._pair.base.open() as model:
            anatomy = locate(model)
            self._check_prompts("base", anatomy, plan)
            if spec.members:
                self._check_patching(anatomy)
                self._report(f"patching {spec.name}", 0, 1)
            samples, failed = read_base(
                anatomy,
                spec,
                part,
                plan.readings[number],
                progress=partial(self._report, f"patching {spec.name}"),
                saved=self._kept(anatomy),
            )
            plan.unmeasured |= failed
            samples = self._with_controls(plan, number, anatomy, samples)
        samples = replace(samples, tokens=token_texts(self._pair.base.tokenizer, part, samples))
        samples = self._beside_counterfactual(plan, part, samples)
        loaded = tuple(Note("checkpoint", {"why": why}) for why in self._pair.notes)
        notes = loaded + plan.notes + part_notes(plan.whole) + prompt_notes(spec)
        return replace(samples, stages=plan.stages.counts, notes=notes, dropped=plan.whole.dropped)

    def _members(self, plan: _Planned, number: int) -> dict[Key, FloatArray]:
        """Read in the base what says where in a circuit a loss is, on one part."""
        part, spec = plan.stages.parts[number], plan.spec
        if part.pairs is None or not part.units:
            return {}
        with memory_errors(f"patching circuit {spec.name}"), self._pair.base.open() as model:
            anatomy = locate(model)
            return read_members(
                anatomy,
                spec,
                part,
                plan.readings[number],
                attention=self._attention,
                progress=partial(self._report, f"looking for the loss in {spec.name}"),
                saved=self._kept(anatomy),
            )

    def _kept(self, anatomy: Anatomy) -> Kept | None:
        """Where what depends on the open base alone is kept."""
        if not self._keep or self._cache is None:
            return None
        return Kept.of(self._pair.base, anatomy, self._cache)

    def _beside_counterfactual(self, plan: _Planned, part: Part, samples: Samples) -> Samples:
        """The samples with the counterfactual readout of each other model that may compute the
        base's function though its parts differ (so far as an earlier part has told); it is loaded
        once more for that."""
        for checkpoint in self._others():
            role = checkpoint.role
            begun = any(one.get(COUNTERFACTUAL, WHOLE, role) is not None for one in plan.parts)
            if apart(samples, role) is None and (begun or may_be_equal(samples, role)):
                pairs = capability_of(part)
                with memory_errors(f"reading {role}"), checkpoint.open() as model:
                    values = counterfactual_readout(locate(model), pairs)
                samples = samples.with_arrays({Key(COUNTERFACTUAL, WHOLE, role): values})
        return samples

    def _with_controls(
        self, plan: _Planned, number: int, anatomy: Anatomy, samples: Samples
    ) -> Samples:
        """What the controls cost on the circuit's own pairs."""
        samples = replace(samples, controls=tuple(one.control for one in plan.others))
        chosen = [other for other in plan.others if other.members]
        heads = plan.readings[number][TUNED].heads if chosen else None
        if heads is None:
            return samples
        found = patched(
            anatomy,
            capability_of(plan.stages.parts[number]),
            [other.members for other in chosen],
            {TUNED: heads},
            importance=False,
            site=plan.spec.site,
        )
        return samples.with_arrays(
            {
                Key(DAMAGE, one.control.subject, TUNED): found.damage(one.members, TUNED)
                for one in chosen
            }
        )

    # --- the run's family ----------------------------------------------------------------------

    def _family_left(self) -> int:
        """The limits that share the run's false-alarm rate: without those that cannot be measured.

        The base alone says which, by what it does on the prompts of every file of the run: those
        that are measured here are so now; of the others it is what an earlier run kept, or read in
        a plain pass. So every worker of a run counts the same, whichever limits it judges.
        """
        if self._limits:
            by_file: dict[GateSpec, list[Limit]] = {}
            for spec, limit in self._limits:
                by_file.setdefault(spec, []).append(limit)
            self._limits = ()
            left = sum(len(own) - self._able(spec, own) for spec, own in by_file.items())
            self._family = max(1, self._family - left)
        return self._family

    def _able(self, spec: GateSpec, limits: Sequence[Limit]) -> int:
        """How many limits of one file can be measured."""
        plan = self._plans.get(spec.name) or self._encoded(spec)
        if plan.failed is not None:
            return 0
        sampled = [one for one in limits if one.measure.estimator is not Estimator.EXACT]
        exact = len(limits) - len(sampled)
        if not sampled or not plan.whole.units:
            return exact
        able: list[bool] = []
        with self._blame(plan):
            if spec.name in self._plans:
                judged, found = plan.spec, self._up_to(plan, 0)
            else:  # its circuit is not looked for
                judged = replace(plan.spec, members=(), auto=False, limits=tuple(sampled))
                found = self._behaviour(plan)
            judge = partial(rule.can_be_judged, judged, samples=found, seed=self._seed)
            able += [judge(limit) for limit in sampled]
        return exact + sum(able) if able else 0

    def _behaviour(self, plan: _Planned) -> Samples:
        """What the base does on the first pairs of a file, without patching."""
        with self._pair.base.open() as model:
            anatomy = locate(model)
            found = read_behaviour(anatomy, plan.stages.parts[0], self._kept(anatomy))
        return replace(found, stages=plan.stages.counts)

    def _encoded(self, spec: GateSpec) -> _Planned:
        """A file of the run that this session does not measure."""
        plan = _Planned(spec)
        with self._blame(plan):
            plan.stages = self._drawn(plan)
            check_base(spec, self._pair.base)
        return plan

    # --- numbers that need no model in memory --------------------------------------------------

    def _exact(self, plan: _Planned, measure: Measure) -> None:
        """Read a measure of weights on disk, once, for every model but the base."""
        on_disk = measure.on_disk
        if on_disk is None or measure.key in plan.unmeasured:
            return
        if any(key.quantity == measure.key for key in plan.exact):
            return
        self._report(f"reading the weights for {measure.key}", 0, 1)
        try:
            for other in self._others():
                pair = self._pair
                found = guarded(measure, partial(on_disk, pair.base.spec, other.spec, pair.options))
                for subject, number in checked(measure, found, 0).items():
                    plan.exact[Key(measure.key, subject, other.role)] = float(number)
                    plan.by_stage.clear()
        except ForgetguardError as error:
            plan.unmeasured[measure.key] = error

    # --- checks ------------------------------------------------------------------------------

    def _check_measured(self, plan: _Planned, limit: Limit) -> None:
        """A limit of a measure that failed, or that nobody asked for, has no verdict."""
        measure = limit.measure
        if measure.key in plan.unmeasured:
            raise plan.unmeasured[measure.key]
        reads = measure.compare is not None or measure.patched is not None
        if measure not in measures_of(plan.spec) and (
            reads or (measure.needs_pairs and not reads_pairs(plan.spec))
        ):
            raise SpecificationError(
                f"{plan.spec.where(1)}: {measure.key} is not among its limits, so it was not "
                f"measured: declare it there, with the maximum that you gate on"
            )

    def _check_prompts(self, role: str, anatomy: Anatomy, plan: _Planned) -> None:
        lengths = [len(one.ids) for one in plan.whole.passages]
        if plan.pairs is not None:
            lengths += [batch.clean.shape[1] for batch in plan.pairs.batches]
        if lengths:  # lm-eval keeps what fits, from the end
            check_length(anatomy, plan.spec.name, lengths)
        if plan.pairs is not None and role not in self._summed:
            check_sums(anatomy, plan.pairs.batches[0].clean[:1])
            self._summed.add(role)

    def _check_search(
        self, anatomy: Anatomy, encoded: EncodedCapability, members: tuple[Member, ...]
    ) -> None:
        """Before circuits are looked for: the prompts of each, and the model once."""
        if self._searched:
            lengths = (batch.clean.shape[1] for batch in encoded.batches)
            check_length(anatomy, encoded.capability.name, lengths)
        else:
            check(anatomy, encoded, members)
            self._searched = True

    def _check_patching(self, anatomy: Anatomy) -> None:
        """Once, for the members of all circuits together: it is the model that is checked."""
        if self._patched is None:
            plans = [plan for plan in self._sound() if plan.spec.members and plan.pairs]
            # Short prompts will do, but their pairs should begin alike: then a prefix is shared.
            batch = min(
                (capability_of(plan.whole).batches[0] for plan in plans),
                key=lambda one: (one.start == 0, one.clean.shape[1]),
            )
            members = {member for plan in plans for member in plan.spec.members}
            try:
                check_patching(
                    anatomy,
                    batch.clean[:2],
                    batch.counterfactual[:2],
                    batch.positions,
                    sorted(members),
                    start=batch.start,
                )
                self._patched = True
            except ForgetguardError as error:
                self._patched = error
        if isinstance(self._patched, ForgetguardError):
            raise self._patched

    def _report(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)


# Pairs of a task that a circuit is found with; half of them rank, half cut the ranking.
_DISCOVERY_PAIRS = 64
_DISCOVERY_SEED = 1_000_003  # added to the gate's, so that other pairs are drawn
_EXACT_WITHIN = 60.0  # seconds that patching every head may take, all circuits together


def discovery_pairs(spec: GateSpec, judged: Sequence[Unit]) -> tuple[Capability, dict[str, Any]]:
    """The pairs that `circuit: auto` is found with, none of which is among those `judged`, and what
    they are, in plain values.

    A task draws them from its public words and frames, with one seed whatever the prompt seed of
    the run: the circuit belongs to the base. A file gives those that it holds beside the judged
    ones; where these are too few, and inline pairs, have to serve for both (`kind` is "judged").
    """
    capability = as_capability(spec)
    if isinstance(spec.pairs, TaskPairs):
        seed, count = spec.pairs.seed + _DISCOVERY_SEED, max(_DISCOVERY_PAIRS, spec.pairs.count)
        without = frozenset(one.clean for one in judged)
        found = replace(capability, count=count, seed=seed, held_out=False, without=without)
        return found, {"kind": "task", "task": spec.pairs.task, "seed": seed}
    if isinstance(spec.pairs, FilePairs):
        taken = {pair_texts(one) for one in capability.pairs}
        left = [one for one in spec.pairs.pairs if pair_texts(one) not in taken]
        if len(left) >= 2 * FEWEST_PAIRS:
            most = max(_DISCOVERY_PAIRS, len(capability.pairs))
            return replace(capability, pairs=tuple(left[:most])), {"kind": "file"}
    return capability, {"kind": "judged"}


def auto_notes(found: Found, on: Mapping[str, Any]) -> tuple[Note, ...]:
    """What `circuit: auto` stands for in a verdict, and on which pairs it was found."""
    chosen = found.chosen or {}
    screened = chosen.get("exact_seconds", 0) > chosen.get("within", 0)
    note = Note(
        "auto",
        {
            "members": [str(one) for one in found.circuit],
            "method": found.ranking.method,
            "of": found.curve.members,
            "faithfulness": float(found.faithfulness),
            "low": float(found.low),
            # Why not every head was patched, where `auto` decided that.
            **({"chosen": dict(chosen)} if screened else {}),
            "held_out": found.curve.pairs,
            "found_on": {**on, "pairs": found.pairs + found.curve.pairs},
        },
    )
    return (note, Note("found_on_gated_pairs")) if on["kind"] == "judged" else (note,)


def token_texts(tokenizer: PreTrainedTokenizerBase, part: Part, samples: Samples) -> dict[int, str]:
    """The text of every token that a model found likeliest, as it stands after a prompt: by itself
    many a tokenizer leaves out the space before it."""
    found: dict[int, str] = {}
    for key, values in samples.arrays.items():
        if key.quantity != SAID:
            continue
        for pair, token in zip(capability_of(part).encoded.pairs, values.astype(int), strict=True):
            if int(token) not in found:
                before, whole = (
                    str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
                    for ids in ([pair.clean[-1]], [pair.clean[-1], int(token)])
                )
                found[int(token)] = whole.removeprefix(before)
    return found


def check_base(spec: GateSpec, base: Checkpoint) -> None:
    """Raises SpecificationError where the circuit says that it was found in another base."""
    if spec.fits is not None:
        local = localise(base.spec, base.options, weights=False)
        check_fits(spec, full_config(local), lambda: base.fingerprint.weights)
