"""How much of the base's circuit a tuned model still has, beside what is needed to believe it.

Retention is |C_base & C_M| / |C_base| (arXiv 2605.28860). Alone it misleads in three ways, and each
has its correction here (ours): large circuits overlap by chance; a circuit of another size overlaps
more or less for its size alone; and a search for circuits that does not even agree with itself, on
the same model, cannot show that another model has lost anything.

The search disagrees with itself for two causes, its seed and the prompt pairs, and like is to be
read beside like. Retention compares circuits of the same pairs: beside it stands the base's seed
stability. The split-half ceiling compares circuits of two disjoint halves: what stands beside it is
M's agreement with the base across those halves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TypeAlias

from examples.studies.comparison.overlap import Overlap, as_set, inside, named, overlap
from forgetguard.anatomy.members import Member
from forgetguard.errors import MeasurementError

Circuit: TypeAlias = frozenset[Member]
Scores: TypeAlias = Mapping[Member, float]

LEAST_STABILITY = 0.5
"""The chance-corrected agreement of the base with itself below which retention abstains. Ours:
below it, most of what two searches of ONE model could share beyond chance they do not share, and a
loss of the same size in another model says nothing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and range of a number over `n` comparisons. Not an interval: comparisons that share a
    run are not independent."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """Retention over several comparisons of two circuits.

    Attributes:
        value: |A & B| / |A|; of agreement, in which neither circuit comes first (ceiling,
            stability, `across`), the mean of it and |A & B| / |B|.
        chance: its mean for random sets of the same sizes.
        corrected: (value - chance) / (largest value for these sizes - chance), comparison by
            comparison (`Overlap.corrected`). None where that is undefined in one of them, because
            a circuit is empty or holds every member.
        overlaps: every comparison.
    """

    value: Spread
    chance: float
    corrected: Spread | None
    overlaps: tuple[Overlap, ...]


@dataclass(frozen=True, slots=True)
class MatchedSize:
    """Retention with both circuits cut to the base's size: the k members of highest score of the
    base's run and of the tuned run, k the size of that base run's circuit.

    Attributes:
        agreement: over all (base run, tuned run) pairs.
        tied: rankings in which the k-th score equals the next one, such as `base run 0 at 12`.
            Members tied there are taken in order (layer, heads before the MLP, index), the same
            for both models, which pushes overlap UP: with ties on both sides, distrust it.
    """

    agreement: Agreement
    tied: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention, and what it must be read beside.

    Attributes:
        retained: each base run's circuit in each tuned run's, over all such pairs: the paper's,
            from the same prompt pairs in both models. To be read beside its chance and
            `base_stability`, which are of the same prompt pairs too; not beside `ceiling`.
        matched: the same at matched sizes; None where no scores were given.
        ceiling: agreement of the base's runs with its circuits on the other half, over all such
            pairs; None where no other half was given or a circuit is empty.
        across: the same of the tuned model's runs with the base's circuits on the other half, to be
            read beside `ceiling`. Equal to it, to the bit, where the tuned model finds the base's
            circuits. None where no other half was given or a circuit is empty.
        base_stability, tuned_stability: one model's runs among each other, over unordered pairs;
            None for fewer than two runs or where one found an empty circuit.
        relative: mean chance-corrected `across` / mean chance-corrected `ceiling`: 1 says that the
            tuned model agrees with the base on other pairs as well as the base itself does, 0 that
            it agrees as well as random circuits of these sizes. May exceed 1, as both are noisy,
            and is below 0 where agreement is below chance. It is blind to a circuit that shrank to
            a part of itself: read it beside `retained` and the sizes. None where either is
            undefined or the ceiling is not above chance.
        least_stability: what the base's ceiling and stability had to reach.
        abstained: why retention is no evidence; None where it may be read. The values stay.
    """

    retained: Agreement
    matched: MatchedSize | None
    ceiling: Agreement | None
    across: Agreement | None
    base_stability: Agreement | None
    tuned_stability: Agreement | None
    relative: float | None
    least_stability: float
    abstained: str | None


def retention(
    base_runs: Sequence[Collection[Member]],
    tuned_runs: Sequence[Collection[Member]],
    other_half: Sequence[Collection[Member]],
    universe: Collection[Member],
    least_stability: float = LEAST_STABILITY,
    *,
    base_scores: Sequence[Scores] | None = None,
    tuned_scores: Sequence[Scores] | None = None,
) -> Retention:
    """Compare circuits of the base with circuits of a tuned model.

    Abstains (see `Retention.abstained`) where the base's chance-corrected split-half ceiling or
    seed stability is below `least_stability` or unknown: fewer than two runs of either model, no
    other half, or sizes that leave nothing to measure. Low stability of the TUNED model alone does
    not abstain: a circuit that is gone is not found twice.

    Args:
        base_runs, tuned_runs: one circuit for each seed of the search, all found on the same prompt
            pairs. One circuit given twice is no second run.
        other_half: circuits of the base, one for each seed, found on as many other prompt pairs,
            none of them among those of the runs. May be empty.
        universe: all members that the search could choose from.
        least_stability: in [0, 1].
        base_scores, tuned_scores: the scores behind each run, in the order of the runs, one for
            every member of the universe, higher for what belongs into the circuit (so take the
            size of signed ones first). Both or neither.

    Raises:
        MeasurementError: no runs of a model; an empty base circuit; members or scores that do not
            fit the universe; a score that is not finite; `least_stability` out of range.
    """
    everything = as_set(universe, "the universe")
    base = _circuits(base_runs, everything, "base")
    tuned = _circuits(tuned_runs, everything, "tuned")
    other = [
        inside(one, everything, f"the circuit of the base's run {number} on the other half")
        for number, one in enumerate(other_half)
    ]
    _check(base, tuned, least_stability)
    retained = _directed(base, tuned, everything)
    ceiling = _symmetric(list(product(base, other)), everything)
    across = _symmetric(list(product(tuned, other)), everything)
    base_stability = _symmetric(list(combinations(base, 2)), everything)
    reasons = [
        *_unknown(len(base), len(tuned), len(other)),
        *_unmeasurable(retained),
        *_unstable("split-half ceiling", ceiling, least_stability, given=bool(other)),
        *_unstable("seed stability", base_stability, least_stability, given=len(base) > 1),
    ]
    return Retention(
        retained=retained,
        matched=_matched(base, base_scores, tuned_scores, len(tuned), everything),
        ceiling=ceiling,
        across=across,
        base_stability=base_stability,
        tuned_stability=_symmetric(list(combinations(tuned, 2)), everything),
        relative=_relative(across, ceiling),
        least_stability=least_stability,
        abstained="; ".join(reasons) or None,
    )


def top_members(scores: Scores, size: int) -> tuple[Circuit, bool]:
    """The `size` members of highest score, and whether the last of them ties with the next one.

    Ties go to the earlier member (layer, heads before the MLP, index).

    Raises:
        MeasurementError: there are fewer members than `size`, or a score is not finite.
    """
    wrong = [member for member, score in scores.items() if not math.isfinite(score)]
    if wrong:
        raise MeasurementError(
            f"retention: scores are not finite at {named(wrong)} ({scores[min(wrong)]!r}): a "
            "ranking needs a number for every member"
        )
    if not 0 <= size <= len(scores):
        raise MeasurementError(
            f"retention: {size} members of highest score were asked for, of {len(scores)} scored: "
            "score every member of the universe"
        )
    # Python's sort is stable, also in reverse: equal scores stay in the members' order.
    ranked = sorted(sorted(scores), key=lambda member: scores[member], reverse=True)
    tied = 0 < size < len(ranked) and scores[ranked[size - 1]] == scores[ranked[size]]
    return frozenset(ranked[:size]), bool(tied)


def _circuits(
    runs: Sequence[Collection[Member]], universe: Circuit, role: str
) -> tuple[Circuit, ...]:
    if not runs:
        raise MeasurementError(f"retention: no circuit of the {role} model: give one for each seed")
    return tuple(
        inside(run, universe, f"the circuit of {role} run {number}")
        for number, run in enumerate(runs)
    )


def _check(base: Sequence[Circuit], tuned: Sequence[Circuit], least_stability: float) -> None:
    empty = [number for number, circuit in enumerate(base) if not circuit]
    if empty:
        raise MeasurementError(
            f"retention: the circuit of base run {empty[0]} is empty, so there is nothing to "
            "retain: loosen the search (a smaller penalty, or a lower threshold) or leave the "
            "capability out"
        )
    if not 0 <= least_stability <= 1:
        raise MeasurementError(
            f"retention: least_stability is {least_stability!r}: it is a chance-corrected "
            "agreement, from 0 (as random sets) to 1 (the same circuit each time)"
        )


def _directed(base: Sequence[Circuit], tuned: Sequence[Circuit], universe: Circuit) -> Agreement:
    """Each of `base` in each of `tuned`; no base circuit is empty."""
    return _retained([overlap(one, other, universe) for one, other in product(base, tuned)])


def _retained(found: Sequence[Overlap]) -> Agreement:
    return Agreement(
        _spread([one.shared / one.first_size for one in found]),
        statistics.mean([one.second_size / one.universe_size for one in found]),
        _corrected(found),
        tuple(found),
    )


def _symmetric(pairs: Sequence[tuple[Circuit, Circuit]], universe: Circuit) -> Agreement | None:
    """Circuits in each other, neither of which comes first."""
    if not pairs or not all(one and other for one, other in pairs):
        return None
    found = [overlap(one, other, universe) for one, other in pairs]
    values = [(one.shared / one.first_size + one.shared / one.second_size) / 2 for one in found]
    chances = [(one.first_size + one.second_size) / (2 * one.universe_size) for one in found]
    return Agreement(_spread(values), statistics.mean(chances), _corrected(found), tuple(found))


def _corrected(found: Iterable[Overlap]) -> Spread | None:
    values = [one.corrected for one in found]
    defined = [value for value in values if value is not None]
    # Leaving undefined comparisons out would hide a run that found nothing.
    return _spread(defined) if len(defined) == len(values) else None


def _spread(values: Sequence[float]) -> Spread:
    # This mean is exact until its last rounding: the order of runs changes nothing, and it never
    # leaves the range.
    return Spread(statistics.mean(values), min(values), max(values), len(values))


def _matched(
    base: Sequence[Circuit],
    base_scores: Sequence[Scores] | None,
    tuned_scores: Sequence[Scores] | None,
    tuned_runs: int,
    universe: Circuit,
) -> MatchedSize | None:
    if base_scores is None and tuned_scores is None:
        return None
    base_scores = _scored(base_scores, len(base), universe, "base")
    tuned_scores = _scored(tuned_scores, tuned_runs, universe, "tuned")
    found, tied = [], {}
    for (run, scores), (other, tuned) in product(enumerate(base_scores), enumerate(tuned_scores)):
        size = len(base[run])
        first, tied[f"base run {run} at {size}"] = top_members(scores, size)
        second, tied[f"tuned run {other} at {size}"] = top_members(tuned, size)
        found.append(overlap(first, second, universe))
    return MatchedSize(_retained(found), tuple(name for name, is_tied in tied.items() if is_tied))


def _scored(
    scores: Sequence[Scores] | None, runs: int, universe: Circuit, role: str
) -> Sequence[Scores]:
    given = 0 if scores is None else len(scores)
    if scores is None or given != runs:
        raise MeasurementError(
            f"retention: {given} sets of scores for {runs} runs of the {role} model: give the "
            "scores of every run of both models, in the order of the runs, or of none"
        )
    for number, one in enumerate(scores):
        differing = one.keys() ^ universe
        if differing:
            raise MeasurementError(
                f"retention: the scores of {role} run {number} and the universe differ in "
                f"{named(differing)}: score every member of the universe, and no other"
            )
    return scores


def _relative(across: Agreement | None, ceiling: Agreement | None) -> float | None:
    if across is None or across.corrected is None or ceiling is None or ceiling.corrected is None:
        return None
    best = ceiling.corrected.mean
    return across.corrected.mean / best if best > 0 else None


def _unknown(base: int, tuned: int, other_half: int) -> list[str]:
    """Reasons to abstain for want of runs."""
    reasons = []
    for role, runs in (("base", base), ("tuned model", tuned)):
        if runs < 2:
            reasons.append(
                f"one run of the {role}: what the seed alone changes is unknown (give two or more)"
            )
    if not other_half:
        reasons.append(
            "no circuits of the base from another half of the pairs: the split-half ceiling is "
            "unknown"
        )
    return reasons


def _unmeasurable(retained: Agreement) -> list[str]:
    if retained.corrected is not None:
        return []
    return [
        "a circuit is empty or holds every member: at such sizes retention has no value but chance"
    ]


def _unstable(what: str, found: Agreement | None, least: float, *, given: bool) -> list[str]:
    """Reasons to abstain because the base does not agree with itself."""
    if not given:
        return []
    if found is None or found.corrected is None:
        return [
            f"the base's {what} is not defined: one of its circuits is empty or holds every member"
        ]
    value = found.corrected.mean
    if value >= least:
        return []
    return [
        f"the base's own {what}, corrected for chance, is {value:.2f}, below {least:.2f}: the "
        "search does not find the base's circuit twice (more pairs, or a smaller circuit)"
    ]
