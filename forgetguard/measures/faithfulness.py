"""Faithfulness: how much of what a model does its circuit does alone.

    f(C) = (F(C) - F(none)) / (F(all) - F(none))

F(C) is the mean readout with every member outside C ablated; so 1 is the whole model and 0 a model
without any of its members. The normalisation is MIB's. Values above 1 are possible: what was taken
away had worked against the capability.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.errors import MeasurementError
from forgetguard.measures.ablation import ablation
from forgetguard.measures.behaviour import Behaviour
from forgetguard.measures.interventions import (
    FloatArray,
    Intervention,
    Passes,
    Progress,
    Saved,
    intervene,
)


@dataclass(frozen=True, slots=True, eq=False)
class Faithfulness:
    """F in nats, float64, pair by pair: the whole model (`clean`), without any member (`nothing`,
    [pair]), and with the members of each circuit only (`circuits`, [circuit, pair])."""

    ablation: str
    clean: Behaviour
    nothing: FloatArray
    circuits: FloatArray

    @property
    def whole(self) -> float:
        """F(all) - F(none), in nats."""
        return float(self.clean.readout.mean() - self.nothing.mean())

    @property
    def values(self) -> FloatArray:
        """f of each circuit, float64 [circuit].

        Raises:
            MeasurementError: taking every member away changes nothing, or helps.
        """
        if not self.whole > 0:
            raise MeasurementError(
                f"ablating every member ({self.ablation}) changes the readout by "
                f"{-self.whole:.3g}, so no set of them can be faithful: the readout does not rest "
                "on what the ablation takes away"
            )
        result: FloatArray = (self.circuits.mean(axis=1) - self.nothing.mean()) / self.whole
        return result


def faithfulness(
    anatomy: Anatomy,
    capability: EncodedCapability,
    circuits: Sequence[Collection[Member]],
    universe: Sequence[Member],
    *,
    kind: str = "counterfactual",
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
    nothing: FloatArray | None = None,
) -> Faithfulness:
    """Read the model with only the members of each circuit left; the rest of `universe` is ablated
    by `kind` (measures/ablation.py). `nothing`: F without any of them, [pair], where it is known.

    Raises:
        SpecificationError: there is no such ablation.
        MeasurementError: a circuit has a member outside `universe`.
    """
    for circuit in circuits:
        check_inside(circuit, universe)
    kept = [*[frozenset[Member]()] * (nothing is None), *map(frozenset, circuits)]
    outside = [tuple(one for one in universe if one not in inside) for inside in kept]
    # Each set once: rows of two waves round differently, and f of no members is to be exactly 0.
    distinct = list(dict.fromkeys(outside))
    result = intervene(
        anatomy,
        capability,
        [Intervention(members, kind) for members in distinct],
        ablation(anatomy, capability, universe, kind),
        progress=progress,
        saved=saved,
        passes=passes,
    )
    readout = result.readout[[distinct.index(members) for members in outside]]
    if nothing is None:
        nothing, readout = readout[0], readout[1:]
    return Faithfulness(kind, result.clean, nothing, readout)


def check_inside(members: Collection[Member], universe: Sequence[Member]) -> None:
    """Every one of `members` must be in `universe`, what is ablated around them.

    Raises:
        MeasurementError: some are not.
    """
    strange = sorted(set(members) - set(universe))
    if strange:
        raise MeasurementError(
            f"{', '.join(map(str, strange))}: not among the {len(universe)} members that are "
            "ablated around the circuit"
        )
