"""Prompt pairs in tokens: what is kept, what is dropped and counted, what is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from forgetguard.calibration.nulls import recut
from forgetguard.capabilities.batches import PAD, make_batches
from forgetguard.capabilities.capability import Capability, EncodedCapability, TokenizerFits
from forgetguard.capabilities.encoding import check_same_ids, encode
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.readouts import READOUTS, score
from forgetguard.capabilities.variants import exchange_answers
from forgetguard.errors import CapabilityError

WORDS = "the cat dog sat ran on mat log . Mary John gave to a b c d e f g h".split()


def word_level(words: list[str] | None = None, *, bos: bool = False, eos: bool = False) -> Any:
    words = WORDS if words is None else words
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def byte_pairs() -> Any:
    """Characters, and one merge across the border of prompt and answer: "o" + "k"."""
    letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz 0123456789")}
    tokenizer = Tokenizer(models.BPE({**letters, "ok": 99}, [("o", "k")]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


GOOD = PromptPair("the cat sat on the", "the dog sat on the", " mat", " log")


def many(*pairs: PromptPair) -> list[PromptPair]:
    """The given pairs among enough good ones."""
    fill = [
        PromptPair(f"{w} cat", f"{w} dog", " mat", " log")
        for w in ["a", "b", "c", "d", "e", "f", "g", "h"]
    ]
    return [*fill, *pairs]


def test_ids_are_sliced_from_the_whole_text() -> None:
    tokenizer = word_level(bos=True, eos=True)
    pair = encode(many(GOOD), tokenizer).pairs[-1]
    at = tokenizer.convert_tokens_to_ids
    assert pair.clean == tuple(at(w) for w in ["<s>", "the", "cat", "sat", "on", "the"])
    assert pair.counterfactual == tuple(at(w) for w in ["<s>", "the", "dog", "sat", "on", "the"])
    assert pair.answer == (at("mat"),)
    assert pair.distractor == (at("log"),)
    assert pair.start == 2


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (PromptPair("the cat", "the dog sat", " mat", " log"), "different numbers of tokens"),
        (PromptPair("the cat", "the  cat", " mat", " log"), "same tokens"),
        (PromptPair("the cat", "the dog", " mat", " mat"), "same tokens"),
        (PromptPair("the cat", "the bird", " mat", " log"), "unknown"),
        (PromptPair("the cat", "the dog", " ", " log"), "no tokens"),
    ],
)
def test_a_pair_that_does_not_align_is_dropped_and_counted(pair: PromptPair, reason: str) -> None:
    encoded = encode(many(pair), word_level())
    assert len(encoded.pairs) == 8
    assert encoded.n_dropped == 1
    assert reason in next(iter(encoded.dropped))
    assert encoded.first_dropped is pair


def test_an_answer_that_merges_with_the_prompt_is_dropped() -> None:
    good = [PromptPair(f"x{c}", f"y{c}", "k", "j") for c in "abcdefgh"]
    encoded = encode([*good, PromptPair("xo", "yo", "k", "j")], byte_pairs())
    assert len(encoded.pairs) == 8
    assert "together with the prompt" in next(iter(encoded.dropped))


def test_long_answers_are_for_logprob() -> None:
    long = PromptPair("the cat", "the dog", " sat on", " ran")
    assert encode(many(long), word_level(), single_token=True).n_dropped == 1
    kept = encode(many(long), word_level()).pairs[-1]
    (batch,) = [
        b for b in make_batches(encode(many(long), word_level()).pairs) if len(b.positions) == 2
    ]
    # The answer's first token is predicted at the prompt's end, the second at the first.
    assert batch.positions == (1, 2)
    assert tuple(batch.clean[0].tolist()) == (*kept.clean, kept.answer[0])
    assert tuple(batch.counterfactual[0].tolist()) == (*kept.counterfactual, kept.answer[0])


def test_losing_most_pairs_is_an_error_with_the_reasons() -> None:
    bad = [PromptPair("the cat", f"the dog {w}", " mat", " log") for w in WORDS]
    with pytest.raises(CapabilityError, match=r"8 of 29 .*21 x clean and counterfactual"):
        encode(many(*bad), word_level())


def test_too_few_pairs_is_an_error() -> None:
    with pytest.raises(CapabilityError, match="at least 8"):
        encode([GOOD], word_level())


def test_a_tokenizer_that_yields_nothing_is_noticed() -> None:
    class Silent:
        unk_token_id = eos_token_id = None

        def __call__(self, texts: list[str], **_: object) -> dict[str, list[list[int]]]:
            return {"input_ids": [[] for _ in texts]}

    with pytest.raises(CapabilityError, match="no tokens"):
        encode(many(), Silent())


def test_another_tokenizer_is_noticed_by_its_ids() -> None:
    mine = encode(many(), word_level())
    other = encode(many(), word_level(list(reversed(WORDS))))
    with pytest.raises(CapabilityError, match="tokenizer of tuned=t gives other ids"):
        check_same_ids(mine, other.pairs, "tuned=t")
    check_same_ids(mine, encode(many(), word_level()).pairs, "tuned")


def test_a_chat_template_is_needed_when_asked_for() -> None:
    tokenizer = word_level()
    with pytest.raises(CapabilityError, match="no chat template"):
        encode(many(), tokenizer, chat_template=True)
    tokenizer.chat_template = (
        "{% for m in messages %}<s> {{ m['content'] }} . {% endfor %}"
        "{% if add_generation_prompt %}to{% endif %}"
    )
    pair = encode(many(), tokenizer, chat_template=True).pairs[0]
    words = tokenizer.convert_ids_to_tokens(list(pair.clean))
    assert words == ["<s>", "a", "cat", ".", "to"]


def test_a_task_is_drawn_until_enough_pairs_fit() -> None:
    capability = Capability("induction", task="induction", count=16)
    with pytest.raises(CapabilityError, match="induction"):
        capability.encoded(word_level(WORDS[:3]))  # too few words to draw from


def test_a_task_that_runs_dry_is_noticed() -> None:
    few = many()  # eight pairs that align
    assert encode(iter(few), word_level(), count=12).asked == 12
    with pytest.raises(CapabilityError, match="8 of 64"):
        encode(iter(few), word_level(), count=64)


def test_fitting_words_are_single_known_tokens() -> None:
    fits = TokenizerFits(word_level())
    assert fits("Mary")
    assert not fits("Peter")


texts = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), min_size=2, max_size=6)


@given(st.lists(st.tuples(texts, st.integers(0, 5)), min_size=30, max_size=60))
def test_batches_hold_every_pair_once_and_unpadded(drawn: list[tuple[list[str], int]]) -> None:
    pairs = []
    for words, place in drawn:
        other = list(words)
        other[place % len(words)] = "cat"
        pairs.append(PromptPair(" ".join(words), " ".join(other), " mat", " log"))
    encoded = encode(pairs, word_level()).pairs
    batches = make_batches(encoded, tokens=24)
    assert sorted(i for batch in batches for i in batch.pairs) == list(range(len(pairs)))
    for batch in batches:
        assert batch.clean.numel() <= 24 or len(batch.pairs) == 1
        assert torch.equal(batch.clean[:, : batch.start], batch.counterfactual[:, : batch.start])
        for row, index in enumerate(batch.pairs):
            assert tuple(batch.clean[row].tolist()) == encoded[index].clean
            assert tuple(batch.answer[row].tolist()) == encoded[index].answer


def several(**given: tuple[str, ...]) -> PromptPair:
    return PromptPair("the cat", "the dog", " mat", " log", **given)


def test_further_answers_are_single_tokens_in_place_and_padded_in_a_batch() -> None:
    tokenizer = word_level()
    at = tokenizer.convert_tokens_to_ids
    pairs = encode(many(several(answers=(" on", " ran"), distractors=(" sat",))), tokenizer).pairs
    assert pairs[-1].answers == (at("on"), at("ran"))
    assert pairs[-1].distractors == (at("sat"),)
    (batch,) = make_batches(pairs)
    mat, log = at("mat"), at("log")
    assert batch.answers is not None
    assert batch.distractors is not None
    assert batch.answers.tolist()[-2:] == [[mat, PAD, PAD], [mat, at("on"), at("ran")]]
    assert batch.distractors.tolist()[-2:] == [[log, PAD], [log, at("sat")]]
    (plain,) = make_batches(pairs[:-1])
    assert plain.answers is plain.distractors is None


def test_every_option_is_scored_by_log_odds_and_only_the_first_by_logit_diff() -> None:
    pairs = encode(
        many(several(answers=(" on", " ran"), distractors=(" sat",))), word_level()
    ).pairs
    (batch,) = make_batches(pairs)
    logits = torch.randn(9, 1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.arange(9)
    plain = score(READOUTS["logit_diff"], logits, batch, rows)
    every = score(READOUTS["log_odds"], logits, batch, rows)
    assert torch.allclose(plain[:-1], every[:-1])
    weight = logits[-1, 0].exp()
    valid, invalid = (
        sum(weight[i] for i in (*first, *further))
        for first, further in (
            (pairs[-1].answer, pairs[-1].answers),
            (pairs[-1].distractor, pairs[-1].distractors),
        )
    )
    assert every[-1].item() == pytest.approx((valid / invalid).log().item())
    assert plain[-1].item() != pytest.approx(every[-1].item())


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (several(answers=(" on the",)), "a further answer is not one token"),
        (several(answers=(" on",), distractors=(" on",)), "the same token"),
        (several(distractors=(" mat",)), "the same token"),
        (several(answers=(" zebra",)), "unknown"),
    ],
)
def test_a_further_answer_that_cannot_be_scored_drops_the_pair(pair, reason: str) -> None:
    encoded = encode(many(pair), word_level())
    assert encoded.n_dropped == 1
    assert reason in next(iter(encoded.dropped))


def test_an_answer_that_begins_with_a_bare_space_is_dropped() -> None:
    """In letters " 7" is a space and a digit: the space would be what is scored first."""
    good = [PromptPair(f"x{c}", f"y{c}", "7", "8") for c in "abcdefgh"]
    encoded = encode([*good, PromptPair("xa", "ya", " 7", " 8")], byte_pairs())
    assert len(encoded.pairs) == 8
    assert "white space alone" in next(iter(encoded.dropped))
    assert TokenizerFits(byte_pairs(), single_token=False)("7") == 0
    assert TokenizerFits(byte_pairs(), single_token=False)("7", "x") == 1


def test_other_ids_of_a_further_answer_are_other_ids() -> None:
    mine = encode(many(several(answers=(" on",))), word_level())
    theirs = encode(many(several(answers=(" ran",))), word_level())
    with pytest.raises(CapabilityError, match="gives other ids"):
        check_same_ids(mine, theirs.pairs, "tuned")


def test_batches_that_are_recut_and_answers_that_are_exchanged_keep_every_option() -> None:
    given = many(several(answers=(" on", " ran"), distractors=(" sat",)), several(answers=(" a",)))
    given[-1] = replace(given[-1], clean="a b", counterfactual="a c")
    found = Capability("x", "log_odds", pairs=tuple(given)).encoded(word_level())

    def options(capability: EncodedCapability) -> dict[int, tuple[list[int], list[int]]]:
        sides = [(one, one.answers, one.distractors) for one in capability.batches]
        return {
            pair: (valid[row].tolist(), invalid[row].tolist())
            for batch, valid, invalid in sides
            if valid is not None and invalid is not None
            for row, pair in enumerate(batch.pairs)
        }

    before = options(found)
    assert len(before) == 10
    assert options(recut(found, random.Random(0))) == before
    exchanged = options(exchange_answers(found))
    assert exchanged == {pair: (invalid, valid) for pair, (valid, invalid) in before.items()}
