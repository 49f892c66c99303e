"""From a method to a circuit: the smallest set that is faithful on pairs it was not found on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import halves
from forgetguard.discovery.curve import Curve, faithfulness_curve, grid
from forgetguard.discovery.ranking import Method, Progress, Ranking, by_sign, by_size
from forgetguard.errors import CapabilityError
from forgetguard.measures.ability import check_able
from forgetguard.measures.interventions import Passes, Saved

FAITHFUL = 0.8  # of the whole effect; the co-author's pilot gate asks for as much
# A member whose own effect is this share of the whole belongs to every circuit.
LEAST_SHARE = 0.1
_TOP = 10


@dataclass(frozen=True, slots=True)
class Stability:
    """How alike two rankings are, each from one half (`pairs`) of the pairs that were ranked on:
    Jaccard overlaps of their `top` first members, and of their first as many as the circuit has."""

    pairs: int
    top: int
    of_top: float
    of_circuit: float


@dataclass(frozen=True, slots=True)
class Dip:
    """The curve reached the mark at `reached` members and fell again, to `lowest` at `at`."""

    reached: int
    at: int
    lowest: float


@dataclass(frozen=True, slots=True)
class Found:
    """A circuit as it was found.

    ranking: of all members, on one half of the pairs; by the sign of their effects (what works
        against the capability last) where `signed`, else by their size.
    curve: of that ranking, on the other half.
    circuit: the fewest top-ranked members, in order of layer and index, from which on the lower
        bound of faithfulness there stays at `faithful` or above, with every member whose own effect
        was patched and is a tenth of the whole.
    accuracy: of the base on the pairs that were ranked on.
    pairs: how many those are.
    seed: of the split of the pairs, and of what the method draws.
    stability: of the ranking; None where its method gives no scores by half.
    chosen: where nobody named the method: `exact_seconds` that exact patching was estimated to
        take, and `within` what.
    """

    ranking: Ranking
    curve: Curve
    circuit: tuple[Member, ...]
    faithful: float
    accuracy: float
    pairs: int
    seed: int
    signed: bool = False
    stability: Stability | None = None
    chosen: Mapping[str, float] | None = None

    @property
    def faithfulness(self) -> float:
        """Of the circuit, on the held-out pairs."""
        return self.curve.at(len(self.circuit))

    @property
    def low(self) -> float:
        """Its lower bound."""
        return self.curve.low_at(len(self.circuit))

    @property
    def dip(self) -> Dip | None:
        """Where the curve fell below the mark after it had reached it, if it did."""
        reached = self.curve.first(self.faithful)
        if reached is None:
            return None
        at = min((one for one in self.curve.sizes if one >= reached), key=self.curve.at)
        lowest = self.curve.at(at)
        return Dip(reached, at, lowest) if lowest < self.faithful else None

    @property
    def against(self) -> Mapping[Member, float]:
        """Effects in nats of members that work against the capability by a tenth of the whole."""
        least = LEAST_SHARE * self.curve.whole
        scores = self.ranking.scores
        return {one: scores[one] for one in sorted(self.ranking.patched) if scores[one] <= -least}


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
    coarse: bool = False,
) -> Found:
    """Rank `members` on one half of the pairs, and cut the ranking on the other: that by sign, and
    that by size where it has a smaller circuit. `coarse`: that by sign alone, at fewer sizes.

    Raises:
        BaseCannotError: the model cannot do the capability.
        CapabilityError: too few pairs, or no set of members is faithful enough.
        MeasurementError: ablating every member loses nothing.
    """
    ranked_on, held_out = halves(capability, seed)
    passes = Passes(members)
    accuracy = check_able(anatomy, ranked_on, passes)
    ranking = method(
        anatomy, ranked_on, members, seed=seed, progress=progress, saved=saved, passes=passes
    )
    shared = Passes(members, nested=True)

    def draw(ranking: Ranking, sizes: Sequence[int] | None = None) -> tuple[Curve, int | None]:
        """The curve of a ranking (at `sizes` alone, where given), and the size of its circuit."""
        curve, _ = faithfulness_curve(
            anatomy,
            held_out,
            ranking.order,
            faithful=faithful,
            at_least=partial(fewest, ranking),
            sizes=sizes,
            kind=ablation,
            progress=progress,
            saved=saved,
            passes=shared,
            coarse=coarse,
        )
        return curve, curve.smallest(faithful, at_least=fewest(ranking, curve.whole))

    signed = ranking.signed()
    curve, size = draw(signed)
    if size is None:
        raise CapabilityError(
            f"capability {capability.capability.name}: no circuit's faithfulness is at least "
            f"{faithful:g} with confidence; the largest lower bound found is {max(curve.low):.3g}"
        )
    is_signed = signed.order != ranking.order
    sizes = [] if coarse else _shorter(ranking, curve.whole, size)
    if sizes and max(draw(ranking, sizes)[0].low) >= faithful:
        other, smaller = draw(ranking)
        if smaller is not None and smaller < size:
            curve, size, is_signed = other, smaller, False
    chosen = replace(signed if is_signed else ranking, by_half=None)
    return Found(
        chosen,
        curve,
        tuple(sorted(chosen.order[:size])),
        faithful,
        accuracy,
        ranked_on.n_pairs,
        seed,
        is_signed,
        _stability(ranking, size, ranked_on.n_pairs // 2, signed=is_signed),
    )


def fewest(ranking: Ranking, whole: float) -> int:
    """The shortest prefix that holds every member whose own effect is a tenth of `whole` (nats)."""
    least = LEAST_SHARE * whole
    places = [
        place
        for place, (one, score) in enumerate(ranking.scores.items(), 1)
        if one in ranking.patched and score >= least
    ]
    return max(places, default=1)


def _shorter(ranking: Ranking, whole: float, size: int) -> list[int]:
    """Sizes below `size` at which the ranking by size could have a circuit that the one by sign has
    not: read before its whole curve is."""
    shorter = range(fewest(ranking, whole), size)
    sizes = [one for one in grid(len(ranking.order)) if one in shorter]
    differs = sizes and ranking.order[: sizes[-1]] != ranking.signed().order[: sizes[-1]]
    return sizes if differs else []


def _stability(ranking: Ranking, size: int, pairs: int, *, signed: bool) -> Stability | None:
    if ranking.by_half is None:
        return None
    one, other = (
        list(by_sign(half, ranking.patched) if signed else by_size(half))
        for half in ranking.by_half
    )
    top = min(_TOP, len(one))
    return Stability(
        pairs, top, _jaccard(one[:top], other[:top]), _jaccard(one[:size], other[:size])
    )


def _jaccard(one: Sequence[Member], other: Sequence[Member]) -> float:
    first, second = {*one}, {*other}
    return len(first & second) / len(first | second)
