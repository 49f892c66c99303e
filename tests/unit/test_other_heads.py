"""Controls are other heads: as many, in the same layers, and never the circuit's own."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetguard.anatomy.members import Head, Member, Mlp, heads_of
from forgetguard.measures.other_heads import other_circuit, random_sets

EVERYTHING: tuple[Member, ...] = (
    *(Head(layer, index) for layer in range(4) for index in range(6)),
    *(Mlp(layer) for layer in range(4)),
)
circuits = st.sets(st.sampled_from(EVERYTHING), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(circuits, st.integers(0, 5), st.integers(0, 3))
def test_a_random_set_has_the_circuits_size_and_layers_and_none_of_its_heads(
    circuit: set[Member], count: int, seed: int
) -> None:
    sets = [one for one in random_sets(tuple(circuit), EVERYTHING, count, seed=seed) if one.members]
    assert len({one.members for one in sets}) == len(sets) <= count
    for one in sets:
        assert not set(one.members) & circuit
        wanted = Counter(head.layer for head in heads_of(circuit))
        found = Counter(head.layer for head in heads_of(one.members))
        free = Counter(head.layer for head in heads_of(set(EVERYTHING) - circuit))
        assert all(found[layer] >= min(wanted[layer], free[layer]) for layer in wanted)
        assert len(heads_of(one.members)) == min(wanted.total(), free.total())
        assert bool(one.note) is (len(one.members) < len(circuit))


def test_the_seed_decides_and_no_order_does() -> None:
    circuit = (Head(0, 1), Head(0, 2), Head(3, 5))
    first = random_sets(circuit, EVERYTHING, 4, seed=7)
    assert random_sets(circuit[::-1], EVERYTHING[::-1], 4, seed=7) == first
    assert random_sets(circuit, EVERYTHING, 4, seed=8) != first
    assert [one.name for one in first] == ["random 1", "random 2", "random 3", "random 4"]


def test_layers_that_are_full_are_made_up_for_elsewhere() -> None:
    circuit = tuple(Head(0, index) for index in range(5))
    (one,) = random_sets(circuit, EVERYTHING, 1, seed=0)
    assert Head(0, 5) in one.members
    assert len(one.members) == 5
    assert one.note == ""


def test_too_few_other_heads_are_told() -> None:
    circuit = [head for head in heads_of(EVERYTHING) if head != Head(2, 2)]
    one, missing = random_sets(circuit, heads_of(EVERYTHING), 3, seed=0)
    assert one.members == (Head(2, 2),)
    assert one.note == "1 of 23, no more are left"
    assert missing.members == ()
    assert "3 random sets were asked for and only 1 exist" in missing.note


@pytest.mark.parametrize(
    ("other", "members", "note"),
    [
        ((Head(1, 1), Head(1, 0)), (Head(1, 0), Head(1, 1)), ""),
        ((Head(1, 1), Head(0, 0)), (Head(1, 1),), "1 of 2, the rest is shared"),
        ((Head(0, 0),), (), "all its 1 members are this circuit's too"),
    ],
)
def test_another_circuit_is_taken_without_what_both_share(
    other: tuple[Head, ...], members: tuple[Head, ...], note: str
) -> None:
    found = other_circuit("ioi", other, (Head(0, 0), Head(2, 0)))
    assert (found.name, found.members, found.note) == ("ioi", members, note)
