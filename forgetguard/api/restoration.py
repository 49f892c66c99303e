"""What giving heads of the base back to the tuned model returns of its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Member
from forgetguard.api.circuits import Circuit, members_of
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.encoding import check_same_ids
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.discovery.on_checkpoint import check
from forgetguard.gate import studentised
from forgetguard.gate.resampling import cluster_codes
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.restoration import restored
from forgetguard.measures.vulnerability import capture_heads
from forgetguard.patching.budget import memory_errors
from forgetguard.shown import Row, Shown, row


@dataclass(frozen=True, slots=True, eq=False)
class Restoration(Shown):
    """As shares of what the tuned model lost of the readout: what all members together (`circuit`)
    and each alone (`heads`) return. `lost` is that loss, in nats. Where it cannot be told from 0
    there is nothing to restore: `circuit` is None, and `abstained` says so."""

    lost: Estimate
    circuit: Estimate | None
    heads: Mapping[str, Estimate]
    abstained: str = ""

    def rows(self) -> list[Row]:
        whole = {} if self.circuit is None else {"": self.circuit}
        shares = {**whole, **self.heads}
        return [row("share of the loss", name, one) for name, one in shares.items()]


def restoration(
    pair: ModelPair,
    capability: Capability,
    circuit: Circuit | Sequence[Member | str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Restoration:
    """Patch contributions of the base into the tuned model: it says where to repair. The same patch
    in the other direction is `vulnerability`.

    Raises:
        ForgetguardError: it cannot be measured; the message says why.
    """
    members = members_of(circuit)
    encoded = replace(capability.encoded(pair.base.tokenizer), vocabulary=pair.vocabulary)
    theirs = capability.encoded(pair.tuned.tokenizer)
    check_same_ids(encoded.encoded, theirs.encoded.pairs, "tuned")
    with memory_errors("measuring restoration"):
        with pair.base.open() as model:
            given = capture_heads(locate(model), encoded, members)
        with pair.tuned.open() as model:
            anatomy = locate(model)
            check(anatomy, encoded, members)
            found = restored(anatomy, encoded, members, given)
    clusters = cluster_codes([one.pair.template for one in encoded.encoded.pairs])
    lost = studentised.mean(found.lost, confidence=confidence, seed=seed, clusters=clusters)
    if lost.low <= 0:
        return Restoration(
            lost,
            None,
            {},
            f"the tuned model lost {lost.value:.3g} [{lost.low:.3g}, {lost.high:.3g}] of the "
            "readout, which cannot be told from nothing: there is nothing to restore",
        )
    rows = np.stack([found.gained.circuit, *found.gained.heads.values()])
    family = studentised.ratios(
        rows,
        np.broadcast_to(found.lost, rows.shape),
        confidence=confidence,
        seed=seed,
        clusters=clusters,
    ).estimates
    return Restoration(lost, family[0], dict(zip(map(str, members), family[1:], strict=True)))
