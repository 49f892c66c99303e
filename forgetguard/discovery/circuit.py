"""From a method to a circuit: the smallest set that is faithful on pairs it was not found on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import halves
from forgetguard.discovery.curve import Curve, faithfulness_curve
from forgetguard.discovery.ranking import Method, Progress, Ranking
from forgetguard.errors import CapabilityError
from forgetguard.measures.ability import check_able
from forgetguard.measures.interventions import Saved

FAITHFUL = 0.8  # of the whole effect; the co-author's pilot gate asks for as much


@dataclass(frozen=True, slots=True)
class Found:
    """A circuit as it was found.

    ranking: of all members, on one half of the pairs.
    curve: of that ranking, on the other half.
    circuit: the fewest top-ranked members whose faithfulness there is at least `faithful`, in order
        of layer and index.
    accuracy: of the base on all pairs.
    pairs: how many the ranking was made on.
    seed: of the split of the pairs, and of what the method draws.
    """

    ranking: Ranking
    curve: Curve
    circuit: tuple[Member, ...]
    faithful: float
    accuracy: float
    pairs: int
    seed: int

    @property
    def faithfulness(self) -> float:
        """Of the circuit, on the held-out pairs."""
        return self.curve.at(len(self.circuit))


def find_circuit(
    anatomy: Anatomy,
    capability: EncodedCapability,
    method: Method,
    members: Sequence[Member],
    *,
    faithful: float = FAITHFUL,
    ablation: str = "counterfactual",
    seed: int = 0,
    progress: Progress | None = None,
    saved: Saved | None = None,
) -> Found:
    """Rank `members` on one half of the pairs, and cut the ranking on the other.

    Raises:
        BaseCannotError: the model cannot do the capability.
        CapabilityError: too few pairs, or no set of members is faithful enough.
        MeasurementError: ablating every member loses nothing.
    """
    accuracy = check_able(anatomy, capability)
    ranked_on, held_out = halves(capability, seed)
    ranking = method(anatomy, ranked_on, members, seed=seed, progress=progress, saved=saved)
    curve, _ = faithfulness_curve(
        anatomy,
        held_out,
        ranking.order,
        faithful=faithful,
        kind=ablation,
        progress=progress,
        saved=saved,
    )
    size = curve.smallest(faithful)
    if size is None:
        raise CapabilityError(
            f"capability {capability.capability.name}: no circuit reaches a faithfulness of "
            f"{faithful:g}; the largest found is {max(curve.faithfulness):.3g}"
        )
    circuit = tuple(sorted(ranking.order[:size]))
    return Found(ranking, curve, circuit, faithful, accuracy, ranked_on.n_pairs, seed)
