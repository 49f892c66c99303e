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
from forgetguard.measures.interventions import FloatArray, Intervention, intervene
from forgetguard.measures.vulnerability import Drops, ForeignHeads
from forgetguard.patching.sources import Source


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
    *,
    vocabulary: int | None = None,
) -> Restored:
    """Patch the base's contributions (`capture_heads` on the base) into the tuned model.

    Raises:
        AnatomyError: a member is not in the model.
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    sets = [*((member,) for member in members), tuple(members)]
    result = intervene(
        tuned,
        capability,
        [Intervention(chosen, "base") for chosen in sets],
        lambda number, _, __: {"base": Source(base.z[number], base.weights)},
        vocabulary=vocabulary,
    )
    gained = result.readout - result.clean.readout[None]
    return Restored(
        result.clean,
        Drops(dict(zip(members, gained, strict=False)), gained[-1]),
        base.behaviour.readout - result.clean.readout,
    )
