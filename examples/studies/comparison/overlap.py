"""How much two circuits share, beside what two random sets of their sizes would share.

Half of all heads against half of all heads share half by chance alone (the densities of arXiv
2605.28860), so no overlap is given here without its value by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scipy.stats import hypergeom

from forgetguard.anatomy.members import Member
from forgetguard.errors import MeasurementError

_NAMED = 8


@dataclass(frozen=True, slots=True)
class Overlap:
    """What sets A (`first_size` members) and B (`second_size`) share, of `universe_size` in all.

    Attributes:
        shared: |A & B|.
        jaccard: |A & B| / |A | B|; None where both are empty.
        containment: |A & B| / |A|, the share of A that is found in B; None where A is empty.
        expected_shared: |A| |B| / N, the mean of |A & B| where B (or A) is drawn at random: the
            mean of the hypergeometric distribution.
        chance_containment: |B| / N, the same for `containment`; None where A is empty.
        most_containment: min(|A|, |B|) / |A|, the largest containment that these sizes allow;
            None where A is empty.
        corrected: (containment - chance) / (most - chance). 0 is what random sets read on average,
            1 is one set inside the other (also a small remnant of A: read it beside
            `containment`), below 0 is less than chance. |A| cancels: the value is the same for
            (A, B) and (B, A). None where the sizes leave nothing to measure (most
            equals chance): a set is empty or holds every member.
        p_value: chance of at least `shared` for random sets of these sizes (one-sided; Fisher's
            exact test). Small says only that the sets share more than random ones, not that
            little was lost. 1 where the sizes allow one value alone.
    """

    first_size: int
    second_size: int
    universe_size: int
    shared: int
    jaccard: float | None
    containment: float | None
    expected_shared: float
    chance_containment: float | None
    most_containment: float | None
    corrected: float | None
    p_value: float


def overlap(
    first: Collection[Member], second: Collection[Member], universe: Collection[Member]
) -> Overlap:
    """Compare two sets of members out of `universe` (all that either could have held).

    Order and repetition do not matter. Empty sets are legal: what they leave undefined is None.

    Raises:
        MeasurementError: the universe is empty, a set holds a member that is not in it, or a mask
            is given in the place of a set.
    """
    everything = as_set(universe, "the universe")
    one = inside(first, everything, "the first set")
    other = inside(second, everything, "the second set")
    return overlap_of_counts(len(one), len(other), len(one & other), universe=len(everything))


def overlap_of_counts(first: int, second: int, shared: int, *, universe: int) -> Overlap:
    """The same from counts alone, such as published ones.

    arXiv 2605.28860 (second hand): of 576 heads the base's circuit has 297. SFT: 265 heads, 153
    shared: containment 0.515, by chance 0.460, corrected 0.127. RL: 296 heads, 200 shared: 0.673,
    by chance 0.514, corrected 0.330. The round figures quoted for it elsewhere, "about 10 % and
    33 %", divide by 1 - chance (0.102 and 0.328), which a circuit of fewer heads than the base's
    cannot reach; dividing by what the sizes allow matters where the sizes differ, as for SFT.

    Raises:
        MeasurementError: no two sets have these counts.
    """
    least, most = max(0, first + second - universe), min(first, second)
    if universe < 1 or not (0 <= first <= universe and 0 <= second <= universe):
        raise MeasurementError(
            f"overlap: sets of {first} and {second} members do not fit into {universe}: the "
            "universe must hold at least one member and no fewer than either set"
        )
    if not least <= shared <= most:
        raise MeasurementError(
            f"overlap: sets of {first} and {second} members out of {universe} share between "
            f"{least} and {most}, not {shared}: check the counts"
        )
    # Whole numbers until the last division: equal sets read exactly 1, and degenerate sizes exactly
    # nothing.
    by_chance = first * second
    room = most * universe - by_chance
    union = first + second - shared
    # In one order, because scipy's tail is symmetric in the sizes only up to rounding.
    tail = hypergeom.sf(shared - 1, universe, max(first, second), most)
    return Overlap(
        first_size=first,
        second_size=second,
        universe_size=universe,
        shared=shared,
        jaccard=shared / union if union else None,
        containment=shared / first if first else None,
        expected_shared=by_chance / universe,
        chance_containment=second / universe if first else None,
        most_containment=most / first if first else None,
        corrected=(shared * universe - by_chance) / room if room else None,
        p_value=min(1.0, float(tail)),
    )


def as_set(members: Collection[Member], what: str) -> frozenset[Member]:
    """`members` as a set; `what` names them in errors.

    Raises:
        MeasurementError: `members` is a mapping: all members of a mask are not its circuit.
    """
    if isinstance(members, Mapping):
        raise MeasurementError(
            f"overlap: {what} is a mapping of members to values, not a set of members: choose the "
            "members first (a mask's circuit is its members above 0.5)"
        )
    return frozenset(members)


def inside(
    members: Collection[Member], universe: frozenset[Member], what: str
) -> frozenset[Member]:
    """`members` as a set, all of them in `universe`; `what` names them in errors.

    Raises:
        MeasurementError: some are not, or `members` is a mapping.
    """
    chosen = as_set(members, what)
    if chosen <= universe:
        return chosen
    raise MeasurementError(
        f"overlap: {what} holds members that are not in the universe of {len(universe)}: "
        f"{named(chosen - universe)}: compare circuits of one architecture, and count MLPs in the "
        "universe where a circuit may hold them"
    )


def named(members: Collection[Member]) -> str:
    """The names of `members` in order, cut after a few."""
    names = [str(member) for member in sorted(members)]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
