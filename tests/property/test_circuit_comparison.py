"""What holds of every comparison of circuits and masks, whatever they are."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from examples.studies.comparison.mask_shift import mask_shift, vulnerable, vulnerable_over_seeds
from examples.studies.comparison.overlap import overlap
from examples.studies.comparison.retention import retention
from forgetguard.anatomy.members import Head, Member, Mlp

QUICK = settings(max_examples=100, deadline=None, derandomize=True)
UNIVERSE: tuple[Member, ...] = tuple(
    sorted([*(Head(layer, index) for layer in range(3) for index in range(3)), *map(Mlp, range(3))])
)
circuits = st.frozensets(st.sampled_from(UNIVERSE))
some = st.frozensets(st.sampled_from(UNIVERSE), min_size=1)
shares = st.floats(0, 1)
masks = st.fixed_dictionaries(dict.fromkeys(UNIVERSE, shares))
deltas = st.floats(0, 1, exclude_max=True)
renamings = st.permutations(UNIVERSE).map(lambda order: dict(zip(UNIVERSE, order, strict=True)))


@QUICK
@given(circuits, circuits)
def test_which_set_comes_first_changes_no_symmetric_number(
    first: frozenset[Member], second: frozenset[Member]
) -> None:
    there, back = overlap(first, second, UNIVERSE), overlap(second, first, UNIVERSE)
    assert there.jaccard == back.jaccard
    assert there.shared == back.shared
    assert there.expected_shared == back.expected_shared
    assert there.corrected == back.corrected
    assert there.p_value == back.p_value


@QUICK
@given(circuits, circuits)
def test_shares_are_shares_and_nothing_exceeds_what_the_sizes_allow(
    first: frozenset[Member], second: frozenset[Member]
) -> None:
    found = overlap(first, second, UNIVERSE)
    assert 0 <= found.p_value <= 1
    assert found.jaccard is None or 0 <= found.jaccard <= 1
    if found.containment is not None and found.most_containment is not None:
        assert found.jaccard is not None
        assert 0 <= found.jaccard <= found.containment <= found.most_containment <= 1
    if found.corrected is not None:
        assert found.corrected <= 1
        assert (found.corrected > 0) == (found.shared > found.expected_shared)


@QUICK
@given(some)
def test_a_set_against_itself_reads_one(chosen: frozenset[Member]) -> None:
    found = overlap(chosen, chosen, UNIVERSE)
    assert found.jaccard == found.containment == 1.0
    assert found.corrected == (1.0 if len(chosen) < len(UNIVERSE) else None)


@QUICK
@given(st.frozensets(st.sampled_from(UNIVERSE[:7]), min_size=1, max_size=6), st.integers(1, 6))
def test_all_sets_of_a_size_average_to_chance(chosen: frozenset[Member], size: int) -> None:
    found = [overlap(chosen, other, UNIVERSE[:7]) for other in combinations(UNIVERSE[:7], size)]
    corrected = [one.corrected for one in found if one.corrected is not None]
    assert len(corrected) == len(found)
    assert sum(corrected) / len(found) == pytest.approx(0, abs=1e-12)
    contained = sum(one.containment or 0.0 for one in found) / len(found)
    assert contained == pytest.approx(found[0].chance_containment)


@QUICK
@given(circuits, circuits, renamings)
def test_renaming_members_changes_no_overlap(
    first: frozenset[Member], second: frozenset[Member], names: dict[Member, Member]
) -> None:
    renamed = [[names[member] for member in chosen] for chosen in (first, second)]
    assert overlap(*renamed, UNIVERSE[::-1]) == overlap(first, second, UNIVERSE)


@QUICK
@given(masks, deltas)
def test_a_mask_against_itself_has_no_shift_and_no_vulnerable_member(
    mask: dict[Member, float], delta: float
) -> None:
    assert set(mask_shift(mask, mask).values()) == {0.0}
    assert vulnerable(mask, mask, delta) == ()
    # The mean of equal masks is that mask, to the bit.
    found = vulnerable_over_seeds([mask] * 3, [mask] * 2, delta)
    assert found.members == ()
    assert found.share_within is not None
    assert {*found.drop.values(), *found.share.values(), *found.share_within.values()} == {0.0}


@QUICK
@given(masks, masks)
def test_shifts_there_and_back_cancel(
    tuned: dict[Member, float], base: dict[Member, float]
) -> None:
    there, back = mask_shift(tuned, base), mask_shift(base, tuned)
    assert all(there[member] == -back[member] for member in UNIVERSE)


@QUICK
@given(masks, masks, deltas, deltas)
def test_a_larger_delta_names_no_further_member(
    tuned: dict[Member, float], reference: dict[Member, float], one: float, other: float
) -> None:
    small, large = sorted([one, other])
    assert set(vulnerable(tuned, reference, large)) <= set(vulnerable(tuned, reference, small))


@QUICK
@given(masks, masks)
def test_at_the_default_delta_a_vulnerable_member_has_left_the_references_circuit(
    tuned: dict[Member, float], reference: dict[Member, float]
) -> None:
    for member in vulnerable(tuned, reference):
        assert reference[member] > 0.5
        assert not tuned[member] > 0.5


@QUICK
@given(circuits, circuits, deltas)
def test_binary_masks_name_the_same_members_at_any_delta(
    tuned: frozenset[Member], reference: frozenset[Member], delta: float
) -> None:
    one, other = (
        {member: float(member in circuit) for member in UNIVERSE} for circuit in (tuned, reference)
    )
    assert set(vulnerable(one, other, delta)) == reference - tuned


@QUICK
@given(masks, masks, deltas, renamings)
def test_renaming_members_renames_the_vulnerable_ones(
    tuned: dict[Member, float],
    reference: dict[Member, float],
    delta: float,
    names: dict[Member, Member],
) -> None:
    one, other = (
        {names[member]: value for member, value in mask.items()} for mask in (tuned, reference)
    )
    expected = {names[member] for member in vulnerable(tuned, reference, delta)}
    found = vulnerable(one, other, delta)
    assert set(found) == expected
    assert list(found) == sorted(found)


@QUICK
@given(st.lists(masks, min_size=1, max_size=4), st.lists(masks, min_size=1, max_size=4))
def test_the_order_of_seeds_changes_nothing(
    tuned: list[dict[Member, float]], reference: list[dict[Member, float]]
) -> None:
    there = vulnerable_over_seeds(tuned, reference)
    assert vulnerable_over_seeds(tuned[::-1], reference[::-1]) == there


runs = st.lists(some, min_size=1, max_size=3)


@QUICK
@given(runs, runs, st.lists(some, max_size=2), renamings)
def test_neither_names_nor_the_order_of_runs_change_retention(
    base: list[frozenset[Member]],
    tuned: list[frozenset[Member]],
    other_half: list[frozenset[Member]],
    names: dict[Member, Member],
) -> None:
    def renamed(chosen: frozenset[Member]) -> frozenset[Member]:
        return frozenset(names[member] for member in chosen)

    there = retention(base, tuned, other_half, UNIVERSE)
    back = retention(
        [renamed(one) for one in base[::-1]],
        [renamed(one) for one in tuned[::-1]],
        [renamed(one) for one in other_half[::-1]],
        UNIVERSE[::-1],
    )
    assert back.retained.value == there.retained.value
    assert back.retained.corrected == there.retained.corrected
    assert back.retained.chance == there.retained.chance
    assert back.relative == there.relative
    assert back.abstained == there.abstained
    for one, other in ((back.ceiling, there.ceiling), (back.across, there.across)):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.value == other.value


@QUICK
@given(runs, st.lists(some, min_size=1, max_size=2), st.data())
def test_a_tuned_model_with_the_bases_circuits_reaches_the_ceiling_exactly(
    base: list[frozenset[Member]], other_half: list[frozenset[Member]], data: st.DataObject
) -> None:
    copy = retention(base, base, other_half, UNIVERSE)
    assert copy.across == copy.ceiling
    own = None if copy.ceiling is None else copy.ceiling.corrected
    event("defined" if copy.relative is not None else "undefined")
    assert copy.relative == (1.0 if own is not None and own.mean > 0 else None)
    shuffled = retention(base, data.draw(st.permutations(base)), other_half, UNIVERSE)
    assert shuffled.relative == copy.relative


def _expected_shared(first: int, second: int, universe: int) -> Fraction:
    """The mean of the hypergeometric distribution, term by term."""
    ways = [
        (shared, comb(first, shared) * comb(universe - first, second - shared))
        for shared in range(max(0, first + second - universe), min(first, second) + 1)
    ]
    return Fraction(sum(shared * n for shared, n in ways), comb(universe, second))


@QUICK
@given(runs, runs, st.lists(some, min_size=1, max_size=2))
def test_across_is_what_loops_over_runs_and_members_count(
    base: list[frozenset[Member]],
    tuned: list[frozenset[Member]],
    other_half: list[frozenset[Member]],
) -> None:
    values, corrected = [], []
    for run in tuned:
        for other in other_half:
            shared = 0
            for member in UNIVERSE:
                if member in run and member in other:
                    shared += 1
            values.append((Fraction(shared, len(run)) + Fraction(shared, len(other))) / 2)
            by_chance = _expected_shared(len(run), len(other), len(UNIVERSE))
            most = min(len(run), len(other))
            corrected.append(
                (shared - by_chance) / (most - by_chance) if most > by_chance else None
            )
    found = retention(base, tuned, other_half, UNIVERSE).across
    assert found is not None
    assert found.value.n == len(values)
    assert found.value.mean == pytest.approx(float(sum(values) / len(values)))
    defined = [one for one in corrected if one is not None]
    if len(defined) < len(corrected):
        assert found.corrected is None
    else:
        assert found.corrected is not None
        assert found.corrected.mean == pytest.approx(float(sum(defined) / len(defined)), abs=1e-12)
        assert found.corrected.low == pytest.approx(float(min(defined)), abs=1e-12)


near = st.sampled_from(UNIVERSE[5:]).map(lambda extra: frozenset({*UNIVERSE[:4], extra}))
mixed = st.integers(0, 9).flatmap(lambda draw: some if draw == 9 else near)
mixed_runs = st.integers(1, 3).flatmap(lambda n: st.lists(mixed, min_size=n, max_size=n))


@QUICK
@given(mixed_runs, mixed_runs, st.lists(mixed, max_size=2), st.floats(0, 1))
def test_retention_abstains_exactly_without_runs_halves_or_a_stable_base(
    base: list[frozenset[Member]],
    tuned: list[frozenset[Member]],
    other_half: list[frozenset[Member]],
    least: float,
) -> None:
    found = retention(base, tuned, other_half, UNIVERSE, least)
    assert found.retained.value.low <= found.retained.value.mean <= found.retained.value.high
    stable = all(
        own is not None and own.corrected is not None and own.corrected.mean >= least
        for own in (found.ceiling, found.base_stability)
    )
    enough = min(len(base), len(tuned)) >= 2 and bool(other_half)
    measurable = found.retained.corrected is not None
    event("readable" if found.abstained is None else "abstained")
    assert (found.abstained is None) == (enough and stable and measurable)


@QUICK
@given(some.filter(lambda chosen: len(chosen) < len(UNIVERSE)), st.permutations(range(12)))
def test_scores_that_rank_the_same_keep_everything_at_matched_size(
    chosen: frozenset[Member], order: list[int]
) -> None:
    scores = {member: float(rank) for member, rank in zip(UNIVERSE, order, strict=True)}
    squashed = {member: score**3 / 7 for member, score in scores.items()}
    found = retention(
        [chosen], [chosen], [], UNIVERSE, base_scores=[scores], tuned_scores=[squashed]
    )
    assert found.matched is not None
    assert found.matched.agreement.value.mean == 1.0
    assert found.matched.tied == ()
