"""forgetguard from Python: load, capability, discover, vulnerability.

import forgetguard as fg

pair = fg.load(base="tiny:base", tuned="tiny:sft")              # nothing loaded yet
ioi = fg.capability("ioi", pairs=64, seed=0)
circuit = fg.discover(pair.base, ioi, method="activation_patching")
result = fg.vulnerability(pair, ioi, circuit)
result.circuit.value, result.circuit.interval, result.heads["L0H4"].value
circuit.save("ioi.circuit.yaml")                                # what pytest then gates on
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from forgetguard.anatomy.heads import Head
from forgetguard.anatomy.locate import locate
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import TASKS
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair, Placement
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import resolve
from forgetguard.discovery.activation_patching import activation_patching
from forgetguard.discovery.scores import ScoredHeads
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import schema
from forgetguard.gate.decision import Measurement, judge
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.gate.schema import CircuitSpec, InlinePairs, Limit, TaskPairs
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Estimate
from forgetguard.patching.selfcheck import check_patching, check_sums

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint

METHODS = {"activation_patching": activation_patching}
# A circuit file's limits before a human has reviewed them.
SUGGESTED_LIMITS: Mapping[str, float] = {
    "dcv.circuit": 0.10,
    "dcv.head": 0.25,
    "accuracy.drop": 0.10,  # below 0.05, 64 pairs cannot pass unless nothing at all changed
}
_NO_LIMIT = 1e9


def load(
    base: str | Path,
    tuned: str | Path,
    reference: str | Path | None = None,
    *,
    dtype: str = "float32",
    device: str | None = None,
    device_map: str | None = None,
    placement: Placement = "sequential",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    allow_same: bool = False,
) -> ModelPair:
    """Name the checkpoints to compare. They are checked, but no weights are loaded yet.

    Each is a local Hugging Face directory, a peft adapter's directory, a hub id, or an alias
    (tiny:base, tiny:sft, tiny:lora). Placement `sequential` never holds two models in memory;
    `resident` keeps what it has opened.

    Raises:
        CheckpointError: one cannot be found or read, or they do not belong together (another
            architecture, the same weights unless `allow_same`, ...).
    """
    options = LoadOptions(
        dtype=dtype,
        device=device,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    given = {"base": base, "tuned": tuned, "reference": reference}
    specs = {role: resolve(str(at), role) for role, at in given.items() if at is not None}
    check(
        specs["base"],
        specs["tuned"],
        specs.get("reference"),
        allow_same=allow_same,
        options=options,
    )
    return ModelPair(specs, options, placement)


def capability(
    name: str,
    *,
    pairs: int | str | Path | Iterable[PromptPair] = 64,
    seed: int = 0,
    readout: str = "logit_diff",
    chat_template: bool = False,
) -> Capability:
    """A capability: `pairs` is how many to draw from the bundled task `name`, a JSONL file, or the
    prompt pairs themselves.

    Raises:
        SpecificationError: no such task or readout, or the file cannot be read.
    """
    if readout not in READOUTS:
        raise SpecificationError(f"unknown readout {readout!r}; there are {', '.join(READOUTS)}")
    if isinstance(pairs, int):
        if name not in TASKS:
            raise SpecificationError(
                f"there is no task {name!r} to draw pairs from; there are {', '.join(TASKS)}; "
                "or give pairs= a JSONL file or a list of PromptPair"
            )
        return Capability(
            name, readout, task=name, count=pairs, seed=seed, chat_template=chat_template
        )
    if isinstance(pairs, (str, Path)):
        pairs = read_prompt_file(pairs, readout=readout)
    return Capability(name, readout, pairs=tuple(pairs), chat_template=chat_template)


@dataclass(frozen=True, slots=True)
class Circuit:
    """Heads of a base that carry a capability, and how they were found (`found` is None for heads
    that were given)."""

    capability: Capability
    heads: tuple[Head, ...]
    found: ScoredHeads | None = None

    def spec(self, name: str, limits: Mapping[str, float] = SUGGESTED_LIMITS) -> CircuitSpec:
        """The circuit as a circuit file declares it."""
        capability = self.capability
        return CircuitSpec(
            name=name,
            capability=capability.name,
            pairs=InlinePairs(capability.pairs)
            if capability.task is None
            else TaskPairs(capability.task, capability.count, capability.seed),
            readout=capability.readout,
            heads=self.heads,
            limits=tuple(Limit(key, maximum) for key, maximum in limits.items()),
            chat_template=capability.chat_template,
            found=None if self.found is None else self._provenance(self.found),
        )

    def save(
        self, path: str | Path, *, limits: Mapping[str, float] = SUGGESTED_LIMITS
    ) -> CircuitSpec:
        """Write a circuit file, `*.circuit.yaml`, for pytest to gate on. Review its limits first:
        the default ones know nothing of your model's noise.

        Raises:
            SpecificationError: a limit is not known, or the file cannot be written.
        """
        path = Path(path)
        return schema.save(self.spec(schema.stem(path), limits), path)

    def _provenance(self, found: ScoredHeads) -> dict[str, object]:
        scores = {str(head): round(found.scores[head], 4) for head in self.heads}
        share = round(found.curve[len(self.heads) - 1], 4)
        return {"method": found.method, "scores": scores, "share_of_loss": share}


def discover(
    base: Checkpoint,
    capability: Capability,
    *,
    method: str = "activation_patching",
    share: float = 0.8,
    each: float = 0.1,
) -> Circuit:
    """Find the heads of `base` that carry `capability`: the fewest top-ranked ones that, patched
    from the counterfactual together, lose at least `share` of what patching every head loses, and
    every further head that alone loses at least `each` of it.

    Raises:
        SpecificationError: unknown method, or `share` or `each` is not in (0, 1].
        CapabilityError: the pairs do not suit the tokenizer, or no heads carry the capability.
    """
    if method not in METHODS:
        raise SpecificationError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if not (0 < share <= 1 and 0 < each <= 1):
        raise SpecificationError(
            f"share and each must be above 0 and at most 1, got {share} and {each}"
        )
    encoded = capability.encoded(base.tokenizer)
    with base.open() as model:
        anatomy = locate(model)
        batch = encoded.batches[0]
        check_sums(anatomy, batch.clean[:1])
        check_patching(
            anatomy,
            batch.clean[:2],
            batch.counterfactual[:2],
            batch.positions,
            anatomy.heads,
            start=batch.start,
        )
        found = METHODS[method](anatomy, encoded)
    return Circuit(capability, found.circuit(share, each), found)


@dataclass(frozen=True, slots=True, eq=False)
class Vulnerability:
    """DCV of a circuit from base to tuned, with the pair-by-pair numbers behind it.

    circuit: DCV of all heads patched together. heads: DCV of each head alone, by name; the heads
    whose importance cannot be told from zero abstain and are in `abstained`.
    """

    circuit: Estimate
    heads: Mapping[str, Estimate]
    abstained: Mapping[str, str]
    measurement: Measurement


def vulnerability(
    pair: ModelPair,
    capability: Capability,
    circuit: Circuit | Sequence[Head | str],
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
    if not isinstance(circuit, Circuit):
        heads = tuple(head if isinstance(head, Head) else Head.parse(head) for head in circuit)
        circuit = Circuit(capability, heads)
    spec = replace(
        Circuit(capability, circuit.heads).spec(capability.name),
        site=site,
        confidence=confidence,
    )
    measurement = GateSession(pair, [spec], seed=seed).measurement(spec)
    # Any limit will do: what is wanted is the estimate that a verdict rests on.
    whole, single = (
        judge(spec, Limit(key, _NO_LIMIT), measurement, seed=seed)
        for key in ("dcv.circuit", "dcv.head")
    )
    if whole.estimate is None:
        raise MeasurementError(f"capability {capability.name}: {whole.reason}")
    return Vulnerability(
        circuit=whole.estimate,
        heads={item.head: item.dcv for item in single.worst_heads if item.dcv is not None},
        abstained={item.head: item.note for item in single.worst_heads if item.dcv is None},
        measurement=measurement,
    )
