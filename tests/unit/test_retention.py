"""Retention comes with its chance, its ceiling and its seeds, and abstains without them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations

import pytest

from examples.studies.comparison.retention import Circuit, Retention, retention, top_members
from forgetguard.anatomy.members import Head, Member
from forgetguard.errors import MeasurementError

HEADS: tuple[Member, ...] = tuple(Head(layer, index) for layer in range(5) for index in range(4))


def circuit(*numbers: int) -> Circuit:
    return frozenset(HEADS[number] for number in numbers)


def ranked(*first: int) -> dict[Member, float]:
    """Scores without ties that rank these heads first, in this order."""
    order = [*first, *(number for number in range(len(HEADS)) if number not in first)]
    return {HEADS[number]: float(-rank) for rank, number in enumerate(order)}


BASE = (circuit(0, 1, 2, 3), circuit(0, 1, 2, 4))
TUNED = (circuit(0, 1, 8, 9), circuit(0, 1, 2, 8))
OTHER_HALF = (circuit(0, 1, 2, 3), circuit(0, 1, 4, 8))


def read(
    base: Sequence[Circuit] = BASE,
    tuned: Sequence[Circuit] = TUNED,
    other_half: Sequence[Circuit] = OTHER_HALF,
    least_stability: float = 0.5,
) -> Retention:
    return retention(base, tuned, other_half, HEADS, least_stability)


def test_retention_is_the_mean_over_all_pairs_of_runs_with_its_range() -> None:
    found = read()
    value = found.retained.value
    # Shared heads: 2, 3, 2, 3 of 4.
    assert (value.mean, value.low, value.high, value.n) == (0.625, 0.5, 0.75, 4)
    assert found.retained.chance == pytest.approx(4 / 20)
    corrected = found.retained.corrected
    assert corrected is not None
    # (shared / 4 - 0.2) / 0.8
    assert (corrected.mean, corrected.low, corrected.high) == pytest.approx(
        (0.53125, 0.375, 0.6875)
    )
    assert [one.shared for one in found.retained.overlaps] == [2, 3, 2, 3]
    assert found.abstained is None


def test_the_ceiling_is_of_the_base_across_halves() -> None:
    ceiling = read().ceiling
    assert ceiling is not None
    # Shared heads: 4, 2, 3, 3 of 4.
    assert [one.shared for one in ceiling.overlaps] == [4, 2, 3, 3]
    assert (ceiling.value.mean, ceiling.value.low, ceiling.value.n) == (0.75, 0.5, 4)
    assert ceiling.chance == pytest.approx(4 / 20)
    assert ceiling.corrected is not None
    assert ceiling.corrected.mean == pytest.approx(0.6875)


def test_across_is_the_ceilings_number_of_the_tuned_model_and_relative_divides_the_two() -> None:
    found = read()
    assert found.across is not None
    assert found.across.corrected is not None
    # Shared heads: 2, 3, 3, 3 of 4.
    assert [one.shared for one in found.across.overlaps] == [2, 3, 3, 3]
    assert (found.across.value.mean, found.across.value.n) == (0.6875, 4)
    assert found.across.corrected.mean == pytest.approx(0.609375)
    assert found.retained.corrected is not None
    assert found.retained.corrected.mean == pytest.approx(0.53125), "another number than across"
    assert found.relative == pytest.approx(0.609375 / 0.6875)


def test_circuits_of_different_sizes_are_read_in_both_directions_across_halves() -> None:
    found = read(
        base=[circuit(0, 1)] * 2,
        tuned=[circuit(0, 1, 2, 3)] * 2,
        other_half=[circuit(0, 1, 2, 3), circuit(0, 1)],
    )
    for one in (found.ceiling, found.across):
        assert one is not None
        assert (one.value.mean, one.value.low) == (0.875, 0.75)
    assert found.ceiling is not None
    assert found.ceiling.chance == pytest.approx((0.15 + 0.1) / 2)
    assert found.across is not None
    assert found.across.chance == pytest.approx((0.2 + 0.15) / 2)


def test_a_copy_of_the_base_reaches_its_ceiling_exactly_though_it_retains_more() -> None:
    found = read(tuned=BASE)
    assert found.across == found.ceiling
    assert found.relative == 1.0
    # Of equal seeds all is retained: the same pairs, which is what the ceiling is not about.
    assert [found.retained.overlaps[at].containment for at in (0, 3)] == [1.0, 1.0]


def test_other_seeds_of_the_tuned_model_need_not_be_as_many() -> None:
    found = read(tuned=[*BASE, *BASE[::-1]])
    assert found.across is not None
    assert found.across.value.n == 8
    assert found.relative == 1.0


def test_unrelated_circuits_reach_nothing_of_the_ceiling() -> None:
    everything = [frozenset(one) for one in combinations(HEADS[:10], 3)]
    base = [circuit(0, 1, 2)] * 2
    found = retention(base, everything, [circuit(0, 1, 3)], HEADS[:10])
    assert found.across is not None
    assert found.across.corrected is not None
    assert found.across.value.mean == pytest.approx(found.across.chance)
    assert found.across.corrected.mean == pytest.approx(0, abs=1e-12)
    assert found.relative == pytest.approx(0, abs=1e-12)


def test_a_random_circuit_of_half_of_all_heads_reads_about_zero() -> None:
    draw = random.Random(0)
    heads = [Head(layer, index) for layer in range(36) for index in range(16)]
    chosen = draw.sample(heads, 288)
    left = [head for head in heads if head not in chosen]
    # Of 288 heads of the base each look at it finds 244, and 44 others.
    looks = [draw.sample(chosen, 244) + draw.sample(left, 44) for _ in range(4)]
    found = retention(looks[:2], [draw.sample(heads, 288) for _ in range(2)], looks[2:], heads)
    assert found.ceiling is not None
    assert found.ceiling.corrected is not None
    assert found.ceiling.corrected.mean > 0.4
    assert found.retained.value.mean > 0.45, "without correction it looks like half a circuit"
    # Three standard deviations of the hypergeometric, 6 heads of the 144 beyond chance.
    assert abs(found.relative or math.inf) < 3 * 6 / 144 / found.ceiling.corrected.mean


def test_seed_stability_is_reported_for_both_models() -> None:
    found = read(base=[*BASE, circuit(0, 1, 2, 3)])
    assert found.base_stability is not None
    assert found.tuned_stability is not None
    base = found.base_stability.value
    assert (base.mean, base.low, base.high, base.n) == pytest.approx((2.5 / 3, 0.75, 1, 3))
    assert (found.tuned_stability.value.mean, found.tuned_stability.value.n) == (0.75, 1)


def test_the_same_circuit_everywhere_reads_one() -> None:
    same = [circuit(3, 5, 7)] * 2
    found = read(same, same, same[:1])
    assert found.retained.value.mean == 1.0
    assert found.retained.corrected is not None
    assert found.retained.corrected.mean == 1.0
    assert found.relative == 1.0
    assert found.abstained is None


def test_the_papers_counts_come_out_with_their_chance_and_without_a_ceiling() -> None:
    heads = [Head(layer, index) for layer in range(36) for index in range(16)]
    base = heads[:297]
    for shared, size, expected in (
        (153, 265, (0.515, 0.460, 0.127)),
        (200, 296, (0.673, 0.514, 0.330)),
    ):
        tuned = heads[:shared] + heads[297 : 297 + size - shared]
        found = retention([base], [tuned], [], heads)
        assert found.retained.corrected is not None
        numbers = (found.retained.value.mean, found.retained.chance, found.retained.corrected.mean)
        assert numbers == pytest.approx(expected, abs=5e-4)
        assert found.abstained is not None


def test_one_run_of_a_model_abstains_and_says_which() -> None:
    base = read(base=BASE[:1])
    assert base.abstained is not None
    assert "one run of the base" in base.abstained
    assert "tuned" not in base.abstained
    assert (base.base_stability, base.retained.value.mean) == (None, 0.625)
    tuned = read(tuned=TUNED[:1])
    assert tuned.abstained is not None
    assert "one run of the tuned model" in tuned.abstained


def test_without_the_other_half_it_abstains_because_the_ceiling_is_unknown() -> None:
    found = read(other_half=[])
    assert found.abstained is not None
    assert "split-half ceiling is unknown" in found.abstained
    assert (found.ceiling, found.across, found.relative) == (None, None, None)
    assert found.retained.value.mean == 0.625


def test_halves_that_disagree_abstain() -> None:
    # Two of four shared: (0.5 - 0.2) / 0.8.
    found = read(other_half=[circuit(0, 1, 8, 9)])
    assert found.abstained is not None
    assert "split-half ceiling, corrected for chance, is 0.38, below 0.50" in found.abstained
    assert "seed stability" not in found.abstained
    # The tuned model shares 4 and 3 of 4 with it: more than the base does.
    assert found.relative == pytest.approx((1 + 0.6875) / 2 / 0.375)


def test_seeds_of_the_base_that_disagree_abstain() -> None:
    found = read(
        base=(circuit(0, 1, 2, 3), circuit(0, 1, 8, 9)),
        other_half=[circuit(0, 1, 2, 8)],  # shares 3 with either
    )
    assert found.abstained is not None
    assert "seed stability, corrected for chance, is 0.38, below 0.50" in found.abstained
    assert "ceiling" not in found.abstained


def test_the_least_stability_is_a_bound_that_may_be_met() -> None:
    assert read(least_stability=0.68).abstained is None
    assert read(least_stability=0.70).abstained is not None


def test_agreement_that_is_large_by_chance_alone_abstains() -> None:
    # 18 of 20 heads: halves share 16 of 18 (0.89), chance is 0.9.
    large = frozenset(HEADS[2:])
    found = read([large, large], [large, large], [frozenset(HEADS[:-2])])
    assert found.ceiling is not None
    assert found.ceiling.value.mean > 0.88
    assert found.abstained is not None
    assert "split-half ceiling" in found.abstained
    assert found.relative is None


def test_tuned_seeds_that_disagree_do_not_abstain() -> None:
    found = read(tuned=(circuit(8, 9, 10, 11), circuit(12, 13, 14, 15)))
    assert found.tuned_stability is not None
    assert found.tuned_stability.value.mean == 0
    assert found.abstained is None
    assert found.relative is not None
    assert found.relative < 0


def test_a_tuned_model_without_a_circuit_retains_nothing_and_abstains() -> None:
    found = read(tuned=(circuit(), TUNED[1]))
    assert (found.retained.value.low, found.retained.corrected) == (0.0, None)
    assert (found.across, found.relative) == (None, None)
    assert found.ceiling is not None
    assert found.tuned_stability is None
    assert found.abstained is not None
    assert "empty or holds every member" in found.abstained


def test_a_tuned_model_whose_circuit_is_every_head_has_a_value_and_nothing_beyond_chance() -> None:
    found = read(tuned=[frozenset(HEADS)] * 2)
    assert found.across is not None
    assert found.across.value.mean == pytest.approx((1 + 4 / 20) / 2)
    assert found.across.value.mean == pytest.approx(found.across.chance)
    assert (found.across.corrected, found.relative) == (None, None)
    assert found.abstained is not None


def test_an_empty_circuit_on_the_other_half_abstains() -> None:
    found = read(other_half=[*OTHER_HALF, circuit()])
    assert (found.ceiling, found.across, found.relative) == (None, None, None)
    assert found.abstained is not None
    assert "split-half ceiling is not defined" in found.abstained


def test_a_circuit_that_shrank_is_told_by_its_value_and_not_by_the_corrected_one() -> None:
    found = read(tuned=[circuit(0)] * 2)
    assert found.retained.corrected is not None
    assert (found.retained.value.mean, found.retained.corrected.mean) == (0.25, 1.0)


def test_matched_sizes_compare_the_top_of_both_rankings() -> None:
    found = retention(
        BASE,
        [circuit(0), circuit(0)],
        OTHER_HALF,
        HEADS,
        base_scores=[ranked(0, 1, 2, 3), ranked(0, 1, 2, 4)],
        tuned_scores=[ranked(0, 8, 1, 2), ranked(9, 8, 7, 0)],
    )
    assert found.matched is not None
    assert [one.shared for one in found.matched.agreement.overlaps] == [3, 1, 3, 1]
    assert {one.second_size for one in found.matched.agreement.overlaps} == {4}
    assert found.matched.agreement.value.mean == 0.5
    assert found.matched.agreement.chance == pytest.approx(0.2)
    assert found.matched.tied == ()
    assert found.retained.value.mean == 0.25


def test_matched_sizes_follow_the_base_runs_own_size_and_report_its_ties() -> None:
    tied = ranked(0, 1, 2, 3) | {HEADS[0]: 1.0, HEADS[1]: 0.5, HEADS[2]: 0.5}
    found = retention(
        [circuit(0, 1), circuit(0, 1, 2)],
        [circuit(0), circuit(1)],
        OTHER_HALF,
        HEADS,
        base_scores=[ranked(0, 1), ranked(0, 1)],
        tuned_scores=[tied, ranked(0, 1)],
    )
    assert found.matched is not None
    assert [one.first_size for one in found.matched.agreement.overlaps] == [2, 2, 3, 3]
    assert found.matched.tied == ("tuned run 0 at 2",)


def test_no_scores_leave_matched_sizes_unknown() -> None:
    assert read().matched is None


def test_ties_go_to_the_earlier_member_and_are_reported() -> None:
    scores = dict.fromkeys(reversed(HEADS), 1.0)
    assert top_members(scores, 3) == (circuit(0, 1, 2), True)
    assert top_members(scores, len(HEADS)) == (frozenset(HEADS), False)
    assert top_members(scores, 0) == (circuit(), False)
    # A tie above the cut decides nothing.
    assert top_members(scores | {HEADS[19]: 0.0}, 19)[1] is False


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(MeasurementError, match="not finite at L0H1"):
        top_members({HEADS[0]: 0.0, HEADS[1]: math.nan}, 1)
    with pytest.raises(MeasurementError, match="3 members of highest score were asked for, of 2"):
        top_members({HEADS[0]: 0.0, HEADS[1]: 1.0}, 3)


def test_scores_must_fit_the_runs_and_the_universe() -> None:
    one = [ranked(0), ranked(0)]
    with pytest.raises(MeasurementError, match="0 sets of scores for 2 runs of the tuned"):
        retention(BASE, TUNED, OTHER_HALF, HEADS, base_scores=one)
    with pytest.raises(MeasurementError, match="1 sets of scores for 2 runs of the base"):
        retention(BASE, TUNED, OTHER_HALF, HEADS, base_scores=one[:1], tuned_scores=one)
    fewer = [ranked(0), dict.fromkeys(HEADS[:-1], 0.0)]
    with pytest.raises(MeasurementError, match=r"tuned run 1 and the universe differ in L4H3"):
        retention(BASE, TUNED, OTHER_HALF, HEADS, base_scores=one, tuned_scores=fewer)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(MeasurementError, match="no circuit of the base"):
        read(base=[])
    with pytest.raises(MeasurementError, match="no circuit of the tuned"):
        read(tuned=[])
    with pytest.raises(MeasurementError, match="base run 1 is empty"):
        read(base=(BASE[0], circuit()))


def test_members_out_of_the_universe_are_named_with_their_run() -> None:
    foreign = frozenset({Head(9, 9)})
    with pytest.raises(MeasurementError, match=r"circuit of tuned run 1 holds .* L9H9"):
        read(tuned=(TUNED[0], foreign))
    with pytest.raises(MeasurementError, match=r"base's run 1 on the other half holds .* L9H9"):
        read(other_half=[BASE[0], foreign])


@pytest.mark.parametrize("least", [-0.1, 1.1, math.nan])
def test_a_least_stability_out_of_range_is_refused(least: float) -> None:
    with pytest.raises(MeasurementError, match="least_stability is"):
        read(least_stability=least)
