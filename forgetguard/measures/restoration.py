"""Restoration: what giving the tuned model a member of the base back returns of its loss.

    restoration_h = mean[ F(tuned, x with r_h from (base, x)) - F(tuned, x) ]
                    / mean[ F(base, x) - F(tuned, x) ]

1: the base's head alone repairs the tuned model. It says where to repair; DCV, the same patch in
the other direction, says what was lost. After Prakash et al., arXiv 2402.14811, who patch tuned
heads into the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.measures.behaviour import Behaviour
from forgetguard.measures.interventions import FloatArray
from forgetguard.measures.samples import BASE
from forgetguard.measures.vulnerability import Drops, ForeignHeads, each_and_all, patched


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """Pair by pair, in nats, float64 [pair]: what each member, and all together, give back
    (`gained`), and what the tuned model had lost."""

    tuned: Behaviour
    gained: Drops
    lost: FloatArray


def restored(
    tuned: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    base: ForeignHeads,
) -> Restored:
    """Patch the base's contributions (`capture_heads` on the base) into the tuned model.

    Raises:
        AnatomyError: a member is not in the model.
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    sets = each_and_all(members)
    found = patched(tuned, capability, sets, {BASE: base}, importance=False)
    lost = found.drops(members, BASE)
    gained = Drops({one: -values for one, values in lost.heads.items()}, -lost.circuit)
    return Restored(found.base, gained, base.behaviour.readout - found.base.readout)
