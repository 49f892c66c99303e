"""What holds of every ranking and of every split of the pairs."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_pairs import random_capability

from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.capabilities.variants import exchange_answers, exchange_prompts, halves, take
from forgetguard.discovery.random_order import random_order
from forgetguard.discovery.ranking import by_size
from forgetguard.gate.provenance import _spread
from forgetguard.measures.faithfulness import check_inside

MEMBERS = st.one_of(
    st.builds(Head, st.integers(0, 5), st.integers(0, 5)), st.builds(Mlp, st.integers(0, 5))
)
SCORES = st.dictionaries(MEMBERS, st.floats(allow_nan=False), max_size=40)
FEW_SCORES = st.dictionaries(MEMBERS, st.sampled_from([-1.0, -0.0, 0.0, 1.0]), max_size=40)
WHOLE = random_capability(60, lengths=(5, 6, 8))


@given(SCORES | FEW_SCORES, st.randoms(use_true_random=False))
def test_a_ranking_is_by_absolute_value_and_then_by_place(
    scores: dict[Member, float], rng: object
) -> None:
    found = by_size(scores)
    assert found == scores
    order = list(found)
    for one, after in pairwise(order):
        assert abs(found[one]) >= abs(found[after])
        if abs(found[one]) == abs(found[after]):
            assert one < after
    turned = list(scores)
    rng.shuffle(turned)  # type: ignore[attr-defined]
    assert list(by_size({one: scores[one] for one in turned})) == order


@settings(deadline=None)
@given(st.lists(st.integers(0, 59), min_size=16, max_size=60, unique=True), st.integers())
def test_halves_are_disjoint_cover_everything_and_are_drawn_with_the_seed(
    indices: list[int], seed: int
) -> None:
    part = take(WHOLE, indices)
    first, second = halves(part, seed)
    mine, theirs = first.encoded.pairs, second.encoded.pairs
    assert set(mine) & set(theirs) == set()
    assert set(mine) | set(theirs) == set(part.encoded.pairs)
    assert len(mine) + len(theirs) == part.n_pairs
    assert len(theirs) - len(mine) in (0, 1)
    again = halves(part, seed)
    assert (again[0].encoded.pairs, again[1].encoded.pairs) == (mine, theirs)
    for half in (first, second):  # in the order of the whole, each in exactly one row
        places = [part.encoded.pairs.index(pair) for pair in half.encoded.pairs]
        assert places == sorted(places)
        rows = sorted(pair for batch in half.batches for pair in batch.pairs)
        assert rows == list(range(half.n_pairs))


def test_another_seed_splits_otherwise() -> None:
    splits = {halves(WHOLE, seed)[0].encoded.pairs for seed in range(20)}
    assert len(splits) == 20


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=30))
def test_a_view_exchanged_twice_is_the_view(indices: list[int]) -> None:
    part = take(WHOLE, indices)
    assert exchange_prompts(exchange_prompts(part)).encoded == part.encoded
    assert exchange_answers(exchange_answers(part)).encoded == part.encoded
    both = exchange_answers(exchange_prompts(part))
    assert both.encoded == exchange_prompts(exchange_answers(part)).encoded


@settings(deadline=None)
@given(st.lists(MEMBERS, min_size=1, max_size=40, unique=True), st.integers())
def test_a_random_order_holds_every_member_once(members: list[Member], seed: int) -> None:
    found = random_order(None, WHOLE, members, seed=seed)  # type: ignore[arg-type]
    assert sorted(found.order) == sorted(members)
    assert len(set(found.scores.values())) == len(members)


@given(st.lists(MEMBERS), st.lists(MEMBERS))
def test_members_are_inside_what_holds_them_all(inner: list[Member], rest: list[Member]) -> None:
    check_inside(inner, inner + rest)
    outside = [one for one in rest if one not in inner]
    assume(outside)
    with pytest.raises(Exception, match=str(min(outside))):
        check_inside(rest, inner)


@given(st.integers(1, 3000), st.data())
def test_a_file_keeps_few_points_of_a_curve_with_the_circuit_and_both_ends(
    n: int, data: st.DataObject
) -> None:
    sizes = tuple(range(1, n + 1))
    size = data.draw(st.integers(1, n))
    kept = _spread(sizes, 12, always=size)
    assert kept == sorted(set(kept))
    assert {1, size, n} <= set(kept) <= set(sizes)
    assert len(kept) <= 13
    assert math.isclose(kept[-1], n)
