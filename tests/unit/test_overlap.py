"""Overlap agrees with enumeration of every set, and says what it cannot say."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from examples.studies.comparison.overlap import overlap, overlap_of_counts
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.errors import MeasurementError

UNIVERSE: tuple[Member, ...] = (Head(0, 0), Head(0, 1), Mlp(0), Head(1, 0), Head(1, 1), Mlp(1))
SIZES = list(product(range(len(UNIVERSE) + 1), repeat=2))


def sets_of(size: int) -> list[frozenset[Member]]:
    return [frozenset(chosen) for chosen in combinations(UNIVERSE, size)]


@pytest.mark.parametrize(("first", "second"), SIZES)
def test_expectation_and_p_value_are_those_of_all_sets_of_that_size(
    first: int, second: int
) -> None:
    fixed = sets_of(first)[0]
    shared = [len(fixed & drawn) for drawn in sets_of(second)]
    for drawn in sets_of(second):
        found = overlap(fixed, drawn, UNIVERSE)
        assert found.expected_shared == pytest.approx(sum(shared) / len(shared))
        as_much = sum(count >= found.shared for count in shared)
        assert found.p_value == pytest.approx(as_much / len(shared))
        if first:
            assert found.chance_containment == pytest.approx(found.expected_shared / first)


@pytest.mark.parametrize(("first", "second"), SIZES)
def test_random_sets_read_zero_on_average_and_the_best_sets_read_one(
    first: int, second: int
) -> None:
    fixed = sets_of(first)[0]
    values = [overlap(fixed, drawn, UNIVERSE).corrected for drawn in sets_of(second)]
    if {first, second} & {0, len(UNIVERSE)}:
        assert set(values) == {None}
        return
    numbers = [value for value in values if value is not None]
    assert len(numbers) == len(values)
    assert sum(numbers) / len(numbers) == pytest.approx(0, abs=1e-12)
    assert max(numbers) == 1.0


def test_a_worked_example_has_these_numbers() -> None:
    found = overlap(UNIVERSE[:3], (UNIVERSE[2], UNIVERSE[3]), UNIVERSE)
    assert (found.first_size, found.second_size, found.universe_size, found.shared) == (3, 2, 6, 1)
    assert found.jaccard == 1 / 4
    assert found.containment == 1 / 3
    assert found.expected_shared == 1.0
    assert found.chance_containment == 1 / 3
    assert found.most_containment == 2 / 3
    assert found.corrected == 0.0
    # 15 pairs of members, 3 of them without any of the first three.
    assert found.p_value == pytest.approx(12 / 15)


def test_the_papers_counts_are_mostly_chance() -> None:
    sft = overlap_of_counts(297, 265, 153, universe=576)
    assert sft.containment == pytest.approx(0.515, abs=5e-4)
    assert sft.chance_containment == pytest.approx(0.460, abs=5e-4)
    assert sft.corrected == pytest.approx(0.127, abs=5e-4)
    assert sft.p_value == pytest.approx(0.00396, rel=1e-2)
    rl = overlap_of_counts(297, 296, 200, universe=576)
    assert rl.containment == pytest.approx(0.673, abs=5e-4)
    assert rl.chance_containment == pytest.approx(0.514, abs=5e-4)
    assert rl.corrected == pytest.approx(0.330, abs=5e-4)
    assert rl.p_value < 1e-14


def test_the_quoted_round_figures_divide_by_what_a_smaller_circuit_cannot_reach() -> None:
    for second, shared, quoted in ((265, 153, 0.102), (296, 200, 0.328)):
        found = overlap_of_counts(297, second, shared, universe=576)
        assert found.containment is not None
        assert found.chance_containment is not None
        beyond = found.containment - found.chance_containment
        assert beyond / (1 - found.chance_containment) == pytest.approx(quoted, abs=5e-4)


def test_an_empty_first_set_leaves_containment_undefined() -> None:
    found = overlap((), UNIVERSE[:2], UNIVERSE)
    assert found.containment is None
    assert found.chance_containment is None
    assert found.most_containment is None
    assert found.corrected is None
    assert (found.shared, found.jaccard, found.p_value) == (0, 0.0, 1.0)


def test_an_empty_second_set_contains_nothing_and_cannot_be_corrected() -> None:
    found = overlap(UNIVERSE[:2], (), UNIVERSE)
    assert (found.containment, found.chance_containment, found.corrected) == (0.0, 0.0, None)


def test_two_empty_sets_have_no_jaccard() -> None:
    assert overlap((), (), UNIVERSE).jaccard is None


def test_a_set_of_everything_cannot_be_corrected() -> None:
    found = overlap(UNIVERSE[:2], UNIVERSE, UNIVERSE)
    assert (found.containment, found.corrected, found.p_value) == (1.0, None, 1.0)


def test_repeated_members_count_once() -> None:
    twice = [*UNIVERSE[:2], *UNIVERSE[:2]]
    assert overlap(twice, twice, [*UNIVERSE, *UNIVERSE]) == overlap(
        UNIVERSE[:2], UNIVERSE[:2], UNIVERSE
    )


def test_members_out_of_the_universe_are_named() -> None:
    with pytest.raises(MeasurementError, match=r"second set .* L1MLP, L7H3"):
        overlap(UNIVERSE[:1], [Head(7, 3), Mlp(1)], [Head(0, 0)])
    with pytest.raises(MeasurementError, match=r"first set .* L7H0, .*L7H7 and 4 more:"):
        overlap([Head(7, index) for index in range(12)], (), UNIVERSE)


def test_an_empty_universe_is_refused() -> None:
    with pytest.raises(MeasurementError, match="at least one member"):
        overlap((), (), ())


def test_a_mask_is_not_taken_for_the_set_of_its_members() -> None:
    mask = dict.fromkeys(UNIVERSE, 0.0)
    with pytest.raises(MeasurementError, match="first set is a mapping"):
        overlap(mask, UNIVERSE[:2], UNIVERSE)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((7, 2, 2), "do not fit into 6"),
        ((2, -1, 0), "do not fit into 6"),
        ((2, 3, 3), "between 0 and 2, not 3"),
        ((5, 4, 2), "between 3 and 4, not 2"),
    ],
)
def test_counts_that_no_sets_have_are_refused(counts: tuple[int, int, int], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        overlap_of_counts(*counts, universe=6)
