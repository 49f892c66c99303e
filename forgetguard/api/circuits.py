"""Circuits: found in a base, given by name, saved as files to gate on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetguard.anatomy.members import Member, parse_member
from forgetguard.capabilities.capability import Capability
from forgetguard.checkpoints.placement import Checkpoint
from forgetguard.discovery.circuit import FAITHFUL, Found
from forgetguard.discovery.on_checkpoint import Search, discover_on
from forgetguard.discovery.ranking import Progress
from forgetguard.gate import schema
from forgetguard.gate.declaration import Fits, GateSpec, InlinePairs, Limit, TaskPairs
from forgetguard.gate.provenance import describe, fits_of
from forgetguard.shown import Row, Shown

# A circuit file's limits before a human has reviewed them.
SUGGESTED_LIMITS: Mapping[str, float] = {
    "dcv.circuit": 0.10,
    "dcv.head": 0.25,
    "readout.drop": 0.20,
    "accuracy.drop": 0.10,  # below 0.05, 64 pairs cannot pass unless nothing at all changed
}


@dataclass(frozen=True, slots=True)
class Circuit(Shown):
    """Heads (and MLP layers) of a base that carry a capability, and how they were found (`found` is
    None for members that were given). `fits` says which base they belong to."""

    capability: Capability
    heads: tuple[Member, ...]
    found: Found | None = None
    fits: Fits | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        scores = {} if self.found is None else self.found.ranking.scores
        of = {head: scores[head] for head in self.heads if head in scores}
        return [("score", str(head), score, score, score) for head, score in of.items()]

    def spec(self, name: str, limits: Mapping[str, float] = SUGGESTED_LIMITS) -> GateSpec:
        """The circuit as a circuit file declares it."""
        capability = self.capability
        return GateSpec(
            name=name,
            capability=capability.name,
            pairs=pairs_of(capability),
            readout=capability.readout,
            members=self.heads,
            limits=tuple(Limit(key, maximum) for key, maximum in limits.items()),
            chat_template=capability.chat_template,
            fits=self.fits,
            found=None if self.found is None else {**describe(self.found), **self.provenance},
        )

    def save(self, path: str | Path, *, limits: Mapping[str, float] = SUGGESTED_LIMITS) -> GateSpec:
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
    pairs, and the circuit is the fewest top-ranked ones from which on the lower bound of
    faithfulness on the other half stays at `faithful` or above, the rest of the model being taken
    away by `ablation`, with every head whose own effect was patched and is a tenth of the whole.

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


def pairs_of(capability: Capability) -> InlinePairs | TaskPairs:
    """The pairs of a capability, as a circuit file declares them."""
    if capability.task is None:
        return InlinePairs(capability.pairs)
    return TaskPairs(capability.task, capability.count, capability.seed)


def members_of(circuit: Circuit | Sequence[Member | str]) -> tuple[Member, ...]:
    """The heads and MLP layers of a circuit, or those named.

    Raises:
        SpecificationError: a name is neither a head's nor an MLP layer's.
    """
    if isinstance(circuit, Circuit):
        return circuit.heads
    return tuple(parse_member(one) if isinstance(one, str) else one for one in circuit)
