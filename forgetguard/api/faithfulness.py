"""How much of a capability a circuit carries alone, and what each of its members is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Member, Mlp
from forgetguard.api.circuits import Circuit, members_of
from forgetguard.capabilities.capability import Capability
from forgetguard.checkpoints.placement import Checkpoint
from forgetguard.discovery.on_checkpoint import check
from forgetguard.gate import studentised
from forgetguard.gate.resampling import cluster_codes
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.faithfulness import faithfulness as measure_faithfulness
from forgetguard.measures.necessity import necessity_and_sufficiency
from forgetguard.patching.budget import memory_errors
from forgetguard.shown import Row, Shown, row


def faithfulness(
    checkpoint: Checkpoint,
    capability: Capability,
    circuit: Circuit | Sequence[Member | str],
    *,
    ablation: str = "counterfactual",
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """f(C) = (F(C) - F(none)) / (F(all) - F(none)) of a circuit in a checkpoint, everything outside
    it taken away by `ablation` (`counterfactual`, `mean` or `zero`). MLP layers are taken away too
    where the circuit holds one. A circuit found in the base and measured in the tuned model is a
    transfer.

    `confidence` is one-sided: each bound of the interval holds with that confidence.

    Raises:
        ForgetguardError: it cannot be measured; the message says why.
    """
    members = members_of(circuit)
    encoded = capability.encoded(checkpoint.tokenizer)
    with memory_errors("measuring faithfulness"), checkpoint.open() as model:
        anatomy = locate(model)
        anatomy.check(members)
        universe = anatomy.members(mlps=any(isinstance(one, Mlp) for one in members))
        check(anatomy, encoded, universe)
        found = measure_faithfulness(anatomy, encoded, [members], universe, kind=ablation)
    _ = found.values  # raises where there is no effect to be faithful to
    return studentised.ratio(
        found.circuits[0] - found.nothing,
        found.clean.readout - found.nothing,
        confidence=confidence,
        seed=seed,
        clusters=cluster_codes([one.pair.template for one in encoded.encoded.pairs]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Roles(Shown):
    """Of every head, by name, as a share of the whole effect: what is lost without it
    (`necessity`), and what it brings alone (`sufficiency`)."""

    necessity: Mapping[str, Estimate]
    sufficiency: Mapping[str, Estimate]

    def rows(self) -> list[Row]:
        kinds = {"necessity": self.necessity, "sufficiency": self.sufficiency}
        return [row(kind, name, one) for kind, of in kinds.items() for name, one in of.items()]


def roles(
    checkpoint: Checkpoint,
    capability: Capability,
    *,
    ablation: str = "counterfactual",
    mlps: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
) -> Roles:
    """Necessity and sufficiency of every head of a checkpoint (and MLP layer, with `mlps`).

    Raises:
        ForgetguardError: they cannot be measured; the message says why.
    """
    encoded = capability.encoded(checkpoint.tokenizer)
    with memory_errors("measuring roles"), checkpoint.open() as model:
        anatomy = locate(model)
        members = anatomy.members(mlps=mlps)
        check(anatomy, encoded, members)
        found = necessity_and_sufficiency(anatomy, encoded, members, members, kind=ablation)
    clusters = cluster_codes([one.pair.template for one in encoded.encoded.pairs])

    def shares(values: np.ndarray) -> dict[str, Estimate]:
        family = studentised.ratios(
            values,
            np.broadcast_to(found.whole, values.shape),
            confidence=confidence,
            seed=seed,
            clusters=clusters,
        )
        return dict(zip(map(str, members), family.estimates, strict=True))

    return Roles(shares(found.lost), shares(found.gained))
