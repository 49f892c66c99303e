"""What heads are worth: how much of a capability a circuit carries alone, what each of its members
is for, and what giving heads of the base back to the tuned model returns of its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Member, Mlp
from forgetguard.api.circuits import Circuit, members_of
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.capabilities.encoding import check_same_ids
from forgetguard.checkpoints.placement import Checkpoint, ModelPair
from forgetguard.discovery.on_checkpoint import check
from forgetguard.gate import studentised
from forgetguard.gate.resampling import IntArray, cluster_codes
from forgetguard.gate.verdict import Estimate
from forgetguard.measures.faithfulness import faithfulness as measure_faithfulness
from forgetguard.measures.necessity import necessity_and_sufficiency
from forgetguard.measures.restoration import restored
from forgetguard.measures.samples import FloatArray
from forgetguard.measures.vulnerability import capture_heads
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
        clusters=_clusters(encoded),
    )


def _clusters(encoded: EncodedCapability) -> IntArray | None:
    return cluster_codes([one.pair.template for one in encoded.encoded.pairs])


def _shares(
    rows: FloatArray, whole: FloatArray, encoded: EncodedCapability, confidence: float, seed: int
) -> tuple[Estimate, ...]:
    """Of each row, [row, pair], what share of `whole`, [pair], it is."""
    wholes, clusters = np.broadcast_to(whole, rows.shape), _clusters(encoded)
    family = studentised.ratios(rows, wholes, confidence=confidence, seed=seed, clusters=clusters)
    return family.estimates


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
    shares = (
        _shares(rows, found.whole, encoded, confidence, seed) for rows in (found.lost, found.gained)
    )
    return Roles(*(dict(zip(map(str, members), of, strict=True)) for of in shares))


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
    lost = studentised.mean(
        found.lost, confidence=confidence, seed=seed, clusters=_clusters(encoded)
    )
    if lost.low <= 0:
        return Restoration(
            lost,
            None,
            {},
            f"the tuned model lost {lost.value:.3g} [{lost.low:.3g}, {lost.high:.3g}] of the "
            "readout, which cannot be told from nothing: there is nothing to restore",
        )
    rows = np.stack([found.gained.circuit, *found.gained.heads.values()])
    together, *alone = _shares(rows, found.lost, encoded, confidence, seed)
    return Restoration(lost, together, dict(zip(map(str, members), alone, strict=True)))
