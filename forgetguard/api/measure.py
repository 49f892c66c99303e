"""Any measure of the registry, from base to tuned, from Python; DCV of a circuit among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from forgetguard.anatomy.members import Member
from forgetguard.api.circuits import Circuit, members_of, pairs_of
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.pairs import Prompt
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit, Prompts, TaskPairs
from forgetguard.gate.estimate import Case
from forgetguard.gate.rule import Estimated, estimate
from forgetguard.gate.schema import lacking
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.samples import Samples
from forgetguard.shown import Row, Shown, row


@dataclass(frozen=True, slots=True, eq=False)
class Measured(Shown):
    """What a measure read: by subject (a head's name, `layer 3`, a matrix; empty for the whole), an
    estimate with its interval; and the samples behind it. Subjects that cannot be measured (a head
    whose importance cannot be told from zero) are left out."""

    key: str
    estimates: Mapping[str, Estimate]
    samples: Samples

    @property
    def value(self) -> Estimate:
        """Of the whole.

        Raises:
            MeasurementError: the measure has subjects.
        """
        if "" not in self.estimates:
            raise MeasurementError(f"{self.key} is of {', '.join(self.estimates)}: ask for one")
        return self.estimates[""]

    def rows(self) -> list[Row]:
        return [row(self.key, subject, found) for subject, found in self.estimates.items()]


def measure(
    pair: ModelPair,
    key: str,
    *,
    prompts: Sequence[str | Prompt] = (),
    capability: Capability | None = None,
    circuit: Circuit | Sequence[Member | str] = (),
    new_task: Sequence[str | Prompt] = (),
    confidence: float = 0.95,
    seed: int = 0,
) -> Measured:
    """A measure, with or without `.over_reference`, from the pair's base to its tuned checkpoint.

    Args:
        key: as under `limits:` of a gate file; `forgetguard measures` lists them.
        prompts: for measures that are sampled over prompts.
        capability: prompt pairs, for those that are sampled over pairs; prompts too, where none are
            given.
        circuit: for those that patch one.
        new_task: prompts with completions of the new task, for those that compare the two.
        confidence: one-sided: each bound of an interval holds with that confidence.
        seed: of the resampling.

    Raises:
        SpecificationError: there is no such measure, or it needs what was not given.
        ForgetguardError: it cannot be measured; the message says why.
    """
    spec = GateSpec(
        name=key if capability is None else capability.name,
        capability="" if capability is None else capability.name,
        pairs=_given(prompts, capability),
        readout="logit_diff" if capability is None else capability.readout,
        members=members_of(circuit),
        limits=(Limit(key, 0.0),),
        chat_template=False if capability is None else capability.chat_template,
        confidence=confidence,
        new_task=_prompts(new_task) if new_task else None,
    )
    missing = lacking(spec, spec.limits[0].measure)
    if missing:
        raise SpecificationError(f"{key} needs {missing.partition(':')[0]}: give it")
    samples = GateSession(pair, [spec], seed=seed).measurement(spec)
    found = estimated(Case.of(spec, samples, seed=seed, family=1), key)
    estimates = {one.subject: one.value for one in found.subjects if one.value is not None}
    return Measured(key, estimates, samples)


def _given(
    prompts: Sequence[str | Prompt], capability: Capability | None
) -> TaskPairs | InlinePairs | Prompts | None:
    if prompts:
        return _prompts(prompts)
    return None if capability is None else pairs_of(capability)


def _prompts(given: Sequence[str | Prompt]) -> Prompts:
    found = tuple(Prompt(one) if isinstance(one, str) else one for one in given)
    for one in found:
        if not isinstance(one, Prompt):
            raise SpecificationError(
                f"a prompt is a text or forgetguard.Prompt(text, completion), got {one!r}"
            )
    return Prompts(found)


def estimated(case: Case, key: str) -> Estimated:
    """What a measure came to, before any maximum.

    Raises:
        MeasurementError: nothing can be measured; the code says why.
    """
    found = estimate(case, Limit(key, 0.0))
    if found.unmeasurable is not None:
        facts = ", ".join(f"{one} {value}" for one, value in found.unmeasurable.facts.items())
        raise MeasurementError(
            f"{case.spec.name}: {key} cannot be measured, {found.unmeasurable.code.value}: {facts}"
        )
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Vulnerability(Shown):
    """DCV of a circuit from base to tuned, with the pair-by-pair numbers behind it.

    circuit: DCV of all heads patched together. heads: DCV of each head alone, by name; the heads
    whose importance cannot be told from zero are in `abstained`.
    """

    circuit: Estimate
    heads: Mapping[str, Estimate]
    abstained: tuple[str, ...]
    samples: Samples

    def rows(self) -> list[Row]:
        return [row("DCV", name, one) for name, one in {"": self.circuit, **self.heads}.items()]


def vulnerability(
    pair: ModelPair,
    capability: Capability,
    circuit: Circuit | Sequence[Member | str],
    *,
    confidence: float = 0.95,
    site: str = "contribution",
    seed: int = 0,
) -> Vulnerability:
    """DCV of `circuit` on `capability`, from the pair's base to its tuned checkpoint.

    `confidence` is one-sided: each bound of an interval holds with that confidence.

    Raises:
        ForgetguardError: the circuit cannot be measured; the message says why.
    """
    spec = replace(
        Circuit(capability, members_of(circuit)).spec(capability.name),
        site=site,
        confidence=confidence,
    )
    samples = GateSession(pair, [spec], seed=seed).measurement(spec)
    case = Case.of(spec, samples, seed=seed, family=1)
    whole, single = (estimated(case, key) for key in ("dcv.circuit", "dcv.head"))
    return Vulnerability(
        circuit=whole.subjects[0].held.estimate,
        heads={one.subject: one.value for one in single.subjects if one.value is not None},
        abstained=tuple(one.subject for one in single.subjects if one.value is None),
        samples=samples,
    )
