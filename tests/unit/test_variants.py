"""Other views of a capability: parts of its pairs, prompts or answers exchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from random_pairs import random_capability

from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import exchange_answers, exchange_prompts, halves, take
from forgetguard.errors import CapabilityError


def rows(capability: EncodedCapability) -> dict[int, tuple[object, ...]]:
    """What models run on, by pair: its tokens in the batches."""
    found: dict[int, tuple[object, ...]] = {}
    for batch in capability.batches:
        for row, pair in enumerate(batch.pairs):
            assert pair not in found
            distractor = None if batch.distractor is None else batch.distractor[row].tolist()
            found[pair] = (
                batch.clean[row].tolist(),
                batch.counterfactual[row].tolist(),
                batch.answer[row].tolist(),
                distractor,
            )
    return found


def test_a_part_keeps_its_pairs_in_the_order_given() -> None:
    whole = random_capability(10)
    part = take(whole, [7, 2, 5])
    assert part.encoded.pairs == tuple(whole.encoded.pairs[i] for i in (7, 2, 5))
    assert part.n_pairs == 3
    everything = rows(whole)
    assert rows(part) == {place: everything[i] for place, i in enumerate((7, 2, 5))}
    assert part.capability is whole.capability


def test_how_many_ids_count_is_kept_by_every_view() -> None:
    whole = replace(random_capability(16), vocabulary=7)
    views = (take(whole, [3, 1]), *halves(whole), exchange_prompts(whole), exchange_answers(whole))
    assert [one.vocabulary for one in views] == [7] * 5


def test_halves_need_eight_pairs_each() -> None:
    with pytest.raises(CapabilityError, match="give 16 pairs or more"):
        halves(random_capability(15))
    first, second = halves(random_capability(16))
    assert (first.n_pairs, second.n_pairs) == (8, 8)


def test_an_odd_pair_more_goes_to_the_held_out_half() -> None:
    first, second = halves(random_capability(17))
    assert (first.n_pairs, second.n_pairs) == (8, 9)


@pytest.mark.parametrize("answer", [1, 3])
def test_exchanged_prompts_keep_the_answer_of_the_clean_prompt(answer: int) -> None:
    before = random_capability(8, readout="logprob", answer=answer)
    after = exchange_prompts(before)
    for old, new in zip(before.encoded.pairs, after.encoded.pairs, strict=True):
        assert (new.clean, new.counterfactual) == (old.counterfactual, old.clean)
        assert (new.answer, new.distractor, new.start) == (old.answer, old.distractor, old.start)
    old_rows, new_rows = rows(before), rows(after)
    for pair, (clean, counterfactual, *rest) in old_rows.items():
        assert new_rows[pair] == (counterfactual, clean, *rest)
    assert exchange_prompts(after).encoded == before.encoded


def test_exchanged_answers_are_what_the_model_is_fed() -> None:
    """A later token of an answer is predicted after the answer's earlier tokens."""
    before = random_capability(8, readout="logprob", answer=2)
    after = exchange_answers(before)
    new_rows = rows(after)
    for index, old in enumerate(before.encoded.pairs):
        new = after.encoded.pairs[index]
        assert (new.answer, new.distractor) == (old.distractor, old.answer)
        assert (new.clean, new.counterfactual) == (old.clean, old.counterfactual)
        clean, counterfactual, answer, _ = new_rows[index]
        assert clean == [*old.clean, old.distractor[0]]
        assert counterfactual == [*old.counterfactual, old.distractor[0]]
        assert answer == list(old.distractor)
    assert exchange_answers(after).encoded == before.encoded


def test_answers_cannot_be_exchanged_where_one_pair_has_no_distractor() -> None:
    whole = random_capability(8)
    pairs = (replace(whole.encoded.pairs[0], distractor=()), *whole.encoded.pairs[1:])
    encoded = replace(whole.encoded, pairs=pairs)
    lacking = EncodedCapability(whole.capability, encoded, make_batches(pairs))
    with pytest.raises(CapabilityError, match="give every pair one"):
        exchange_answers(lacking)


def test_views_do_not_change_what_they_are_views_of() -> None:
    whole = random_capability(16)
    before = rows(whole)
    halves(whole)
    exchange_prompts(whole)
    exchange_answers(whole)
    assert rows(whole) == before
