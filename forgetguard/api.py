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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.anatomy.members import Member, parse_member
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.capabilities.tasks import find_task, task_names
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair, Placement
from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import resolve
from forgetguard.discovery.circuit import FAITHFUL, Found
from forgetguard.discovery.on_checkpoint import Search, discover_on
from forgetguard.discovery.ranking import Progress
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import schema
from forgetguard.gate.decision import Measurement, judge
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.gate.provenance import describe, fits_of
from forgetguard.gate.schema import CircuitSpec, Fits, InlinePairs, Limit, TaskPairs
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Estimate

if TYPE_CHECKING:
    from forgetguard.checkpoints.placement import Checkpoint

# A circuit file's limits before a human has reviewed them.
SUGGESTED_LIMITS: Mapping[str, float] = {
    "dcv.circuit": 0.10,
    "dcv.head": 0.25,
    "accuracy.drop": 0.10,  # below 0.05, 64 pairs cannot pass unless nothing at all changed
}
_NO_LIMIT = 1e9


def load(
    base: str | Path,
    tuned: str | Path | None = None,
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
    (tiny:base, tiny:sft, tiny:lora). Discovery needs no `tuned`. Placement `sequential` never holds
    two models in memory; `resident` keeps what it has opened.

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
        specs.get("tuned"),
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
    """A capability: `pairs` is how many to draw from the task `name` (bundled, or an entry point's
    of group `forgetguard.tasks`), a JSONL file, or the prompt pairs themselves.

    Raises:
        SpecificationError: no such task or readout, or the file cannot be read.
        CapabilityError: the task is another distribution's and cannot be loaded.
    """
    if readout not in READOUTS:
        raise SpecificationError(f"unknown readout {readout!r}; there are {', '.join(READOUTS)}")
    if isinstance(pairs, int):
        if name not in task_names():
            raise SpecificationError(
                f"there is no task {name!r} to draw pairs from; there are "
                f"{', '.join(task_names())}; or give pairs= a JSONL file or a list of PromptPair"
            )
        find_task(name)  # an entry point that cannot be loaded is said now
        return Capability(
            name, readout, task=name, count=pairs, seed=seed, chat_template=chat_template
        )
    if isinstance(pairs, (str, Path)):
        pairs = read_prompt_file(pairs, readout=readout)
    return Capability(name, readout, pairs=tuple(pairs), chat_template=chat_template)


@dataclass(frozen=True, slots=True)
class Circuit:
    """Heads (and MLP layers) of a base that carry a capability, and how they were found (`found` is
    None for members that were given). `fits` says which base they belong to."""

    capability: Capability
    heads: tuple[Member, ...]
    found: Found | None = None
    fits: Fits | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)

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
            fits=self.fits,
            found=None if self.found is None else {**describe(self.found), **self.provenance},
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


def discover(
    base: Checkpoint,
    capability: Capability,
    *,
    method: str = "activation_patching",
    faithful: float = FAITHFUL,
    ablation: str = "counterfactual",
    mlps: bool = False,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    keep: bool = False,
    progress: Progress | None = None,
) -> Circuit:
    """Find the heads of `base` that carry `capability`: `method` ranks them on one half of the
    pairs, and the circuit is the fewest top-ranked ones whose faithfulness on the other half is at
    least `faithful`, the rest of the model being taken away by `ablation`.

    Args:
        method: `activation_patching` (exact), `attribution_patching`, `integrated_gradients`,
            `binary_masking`, `desiderata_masking`, `random` (a control), or `auto`.
        mlps: MLP layers may be members too.
        settings: the method's own, by name.
        keep: keep finished work in the cache folder, and take up what is there.

    Raises:
        SpecificationError: unknown method, setting or ablation, or `faithful` is not in (0, 1].
        BaseCannotError: the base cannot do the capability.
        CapabilityError: the pairs do not suit the tokenizer.
    """
    search = Search(method, faithful, ablation, mlps, seed, settings or {})
    found = discover_on(base, capability, search, keep=keep, progress=progress)
    return Circuit(capability, found.circuit, found, fits_of(base))


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
    if not isinstance(circuit, Circuit):
        heads = tuple(parse_member(one) if isinstance(one, str) else one for one in circuit)
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
