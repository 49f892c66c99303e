"""What each member is needed for, and what it can do alone.

    necessity_h   = (F(all) - F(all but h)) / (F(all) - F(none))
    sufficiency_h = (F({h}) - F(none))      / (F(all) - F(none))

A backup head is not necessary and yet sufficient; a head late in a chain is necessary and alone
worth nothing. Cost: two wavefronts over all members; sufficiency's runs start in the first layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.measures.ablation import ablation
from forgetguard.measures.faithfulness import check_inside
from forgetguard.measures.interventions import (
    FloatArray,
    Intervention,
    Progress,
    Saved,
    intervene,
)


@dataclass(frozen=True, slots=True, eq=False)
class Roles:
    """Pair by pair, in nats, float64: what is lost without each member (`lost`, [member, pair]),
    what it brings alone (`gained`, [member, pair]), and the whole effect (`whole`, [pair])."""

    members: tuple[Member, ...]
    lost: FloatArray
    gained: FloatArray
    whole: FloatArray


def necessity_and_sufficiency(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    universe: Sequence[Member],
    *,
    kind: str = "counterfactual",
    progress: Progress | None = None,
    saved: Saved | None = None,
) -> Roles:
    """Take each of `members` away alone, and everything of `universe` but it, by the ablation
    `kind`.

    Raises:
        SpecificationError: there is no such ablation.
        MeasurementError: a member is not in `universe`.
    """
    check_inside(members, universe)
    everything = tuple(universe)
    without = [Intervention((member,), kind) for member in members]
    alone = [
        Intervention(tuple(one for one in everything if one != member), kind) for member in members
    ]
    result = intervene(
        anatomy,
        capability,
        [Intervention(everything, kind), *without, *alone],
        ablation(anatomy, capability, everything, kind),
        progress=progress,
        saved=saved,
    )
    clean, nothing = result.clean.readout, result.readout[0]
    n = len(members)
    return Roles(
        tuple(members),
        clean[None] - result.readout[1 : 1 + n],
        result.readout[1 + n :] - nothing[None],
        clean - nothing,
    )
