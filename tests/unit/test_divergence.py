"""Divergences agree with loops over the vocabulary, and each estimates what its name says."""

from __future__ import annotations

import copy
import math
from itertools import product

import numpy as np
import pytest
import torch
import transformers
from architectures import VOCAB, build
from random_pairs import random_capability
from torch.distributions import Categorical, kl_divergence

from examples.studies.drift.sampled import sampled_divergence, score_completions
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import (
    Passage,
    divergence,
    passage,
    passages_of,
    predict,
    token_divergence,
    token_mode,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = 5  # ids of the model small enough to write down all it can say


@pytest.fixture(scope="module")
def base() -> Anatomy:
    return locate(build("gpt2", seed=0))


@pytest.fixture(scope="module")
def tuned() -> Anatomy:
    return locate(build("gpt2", seed=1))


def draw(count: int, *, lengths: tuple[int, ...] = (4, 6), answer: int = 3) -> list[Passage]:
    generator = torch.Generator().manual_seed(3)

    def ids(n: int) -> list[int]:
        return torch.randint(0, VOCAB, (n,), generator=generator).tolist()

    return [passage(ids(lengths[i % len(lengths)]), ids(answer)) for i in range(count)]


def speaker(seed: int) -> Anatomy:
    """A model of five ids."""
    config = transformers.LlamaConfig(
        vocab_size=FEW,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
    return locate(model.eval().requires_grad_(False))


def naive(one: Anatomy, other: Anatomy, text: Passage) -> list[float]:
    """KL(one || other) at each position of one passage, number by number."""
    found = []
    for position in text.positions:
        logits = [
            m.model(torch.tensor([text.ids])).logits[0, position].tolist() for m in (one, other)
        ]
        p, q = ([math.exp(x - max(row)) for x in row] for row in logits)
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        found.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return found


# --- Exactly --------------------------------------------------------------------------------------


def test_two_coins_have_these_divergences() -> None:
    fair, biased = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    forward, reverse = token_divergence(fair, biased)
    assert forward.item() == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5), rel=1e-6)
    assert reverse.item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-6)
    assert forward.item() > reverse.item()


def test_a_base_that_says_what_the_tuned_model_dropped_shows_in_the_forward_direction() -> None:
    base, tuned = torch.tensor([[0.0, 0.0, -30.0]]), torch.tensor([[0.0, -30.0, -30.0]])
    forward, reverse = token_divergence(base, tuned)
    assert forward.item() == pytest.approx(15 - math.log(2), rel=1e-6)  # half of 30, less a bit
    assert reverse.item() == pytest.approx(math.log(2), rel=1e-6)


def test_every_position_of_every_passage_agrees_with_a_loop_over_the_vocabulary(
    base: Anatomy, tuned: Anatomy
) -> None:
    texts = draw(5)
    found = divergence(base, predict(tuned, texts))
    for number, text in enumerate(texts):
        mine = found.passage == number
        assert found.forward[mine] == pytest.approx(naive(base, tuned, text), rel=1e-5)
        assert found.reverse[mine] == pytest.approx(naive(tuned, base, text), rel=1e-5)
        assert found.means(found.forward)[number] == pytest.approx(found.forward[mine].mean())
        assert found.means(found.reverse)[number] == pytest.approx(found.reverse[mine].mean())
    assert found.vocabulary == VOCAB


def test_torch_distributions_agrees() -> None:
    base, tuned = (
        torch.randn(40, 300, generator=torch.Generator().manual_seed(seed)) * 5 for seed in (0, 1)
    )
    one, other = (Categorical(logits=logits.double()) for logits in (base, tuned))
    forward, reverse = token_divergence(base, tuned)
    torch.testing.assert_close(forward, kl_divergence(one, other), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reverse, kl_divergence(other, one), rtol=1e-12, atol=1e-12)


def test_logits_are_normalised_in_parts_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = torch.randn(2, 7, 11).unbind()
    whole = token_divergence(base, tuned)
    monkeypatch.setattr("forgetguard.measures.divergence._BLOCK", 25)
    parts = token_divergence(base, tuned)
    assert all(map(torch.equal, whole, parts))


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_equal_weights_read_exactly_zero(architecture: str) -> None:
    model = build(architecture)
    texts = draw(7)
    found = divergence(locate(copy.deepcopy(model)), predict(locate(model), texts))
    assert not found.forward.any()
    assert not found.reverse.any()


def test_the_models_exchanged_exchange_the_directions(base: Anatomy, tuned: Anatomy) -> None:
    texts = draw(5)
    one, other = (
        divergence(here, predict(there, texts)) for here, there in ((base, tuned), (tuned, base))
    )
    assert np.array_equal(one.forward, other.reverse)
    assert np.array_equal(one.reverse, other.forward)
    assert not np.allclose(one.forward, one.reverse)


def test_logits_are_kept_as_the_model_computes_them() -> None:
    model = build("qwen3").bfloat16()
    kept = predict(locate(model), draw(3))
    assert kept.logits.dtype == torch.bfloat16
    assert kept.logits.shape == (9, VOCAB)


def test_ids_that_fine_tuning_added_are_cut_and_the_rest_renormalised(base: Anatomy) -> None:
    grown = copy.deepcopy(base.model)
    grown.resize_token_embeddings(VOCAB + 3, mean_resizing=False)  # type: ignore[operator]
    with torch.no_grad():  # the added ids are likely
        grown.get_output_embeddings().weight[VOCAB:] = 0.5  # type: ignore[operator, union-attr]
    texts = draw(4)
    found = divergence(base, predict(locate(grown), texts))
    assert found.vocabulary == VOCAB
    assert found.forward.max() < 1e-9
    for text in texts:
        logits = grown(torch.tensor([text.ids])).logits[0, list(text.positions)]
        assert logits.softmax(-1)[:, VOCAB:].sum(-1).min() > 0.001
    assert divergence(locate(grown), predict(base, texts)).reverse.max() < 1e-9


def test_a_vocabulary_may_be_given_but_not_a_larger_one(base: Anatomy, tuned: Anatomy) -> None:
    texts = draw(2)
    kept = predict(tuned, texts)
    found = divergence(base, kept, vocabulary=50)
    logits = [one.model(torch.tensor([texts[0].ids])).logits[0, 3, :50] for one in (base, tuned)]
    expected = kl_divergence(*(Categorical(logits=row.double()) for row in logits))
    assert found.vocabulary == 50
    assert found.forward[0] == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(MeasurementError, match=f"vocabulary=200, but .* {VOCAB} ids"):
        divergence(base, kept, vocabulary=200)


# --- Sampled --------------------------------------------------------------------------------------


def test_a_completions_score_is_the_loss_that_transformers_reports(base: Anatomy) -> None:
    generator = torch.Generator().manual_seed(4)
    prompt, completion = torch.randint(0, VOCAB, (2, 5), generator=generator).tolist()
    scored = score_completions(base, [passage(prompt, completion)])
    ids = torch.tensor([prompt + completion])
    labels = torch.tensor([[-100] * len(prompt) + completion])
    loss = base.model(ids, labels=labels).loss.item()
    assert scored.log_probability.mean() == pytest.approx(-loss, rel=1e-5)
    assert len(scored.log_probability) == len(completion)


@pytest.mark.parametrize("drawn_from", ["base", "tuned"])
def test_the_estimates_are_unbiased_over_all_that_a_model_can_say(drawn_from: str) -> None:
    """Every completion of three tokens, weighted by its probability, against the chain rule."""
    base, tuned = speaker(0), speaker(1)
    prompt = [1, 2]
    texts = [passage(prompt, said) for said in product(range(FEW), repeat=3)]
    scores = [score_completions(model, texts) for model in (base, tuned)]
    found = sampled_divergence(*scores, drawn_from=drawn_from)  # type: ignore[arg-type]
    drawn = scores[0] if drawn_from == "base" else scores[1]
    chance = np.exp(np.bincount(drawn.passage, weights=drawn.log_probability))
    assert chance.sum() == pytest.approx(1, rel=1e-5)

    exact = divergence(base, predict(tuned, texts))
    by_token = exact.forward if drawn_from == "base" else exact.reverse
    by_passage = np.bincount(exact.passage, weights=by_token)
    whole = chance @ by_passage
    assert found.direction == ("forward" if drawn_from == "base" else "reverse")
    assert list(found.tokens) == [3] * FEW**3
    assert chance @ found.log_ratio == pytest.approx(whole, rel=1e-5)
    assert chance @ found.non_negative == pytest.approx(whole, rel=1e-5)
    assert found.non_negative.min() >= 0 > found.log_ratio.min()
    # The exact sums vary less from completion to completion than the sampled ones.
    spread = [chance @ (values - whole) ** 2 for values in (by_passage, found.log_ratio)]
    assert spread[0] < spread[1] / 2
    # Weighted by the other model's samples, neither is that divergence.
    other = scores[1] if drawn_from == "base" else scores[0]
    wrong = np.exp(np.bincount(other.passage, weights=other.log_probability))
    assert abs(wrong @ found.log_ratio - whole) > 0.1 * whole


def test_equal_models_have_log_ratios_of_exactly_zero(base: Anatomy) -> None:
    texts = draw(4)
    scored = score_completions(base, texts)
    found = sampled_divergence(scored, score_completions(base, texts), drawn_from="tuned")
    assert not found.log_ratio.any()
    assert not found.non_negative.any()


def test_scores_of_a_cut_vocabulary_are_renormalised(base: Anatomy) -> None:
    one = passage([3, 4, 5], [6, 7])
    scored = score_completions(base, [one], vocabulary=20).log_probability
    logits = base.model(torch.tensor([one.ids])).logits[0, [2, 3], :20]
    expected = logits.log_softmax(-1)[[0, 1], [6, 7]]
    assert scored == pytest.approx(expected.numpy(), rel=1e-5)


# --- Where the positions lie, and what is refused ------------------------------------------------


def test_a_prompt_is_read_where_its_next_token_is_predicted() -> None:
    assert passage([5, 6, 7]) == Passage((5, 6, 7), (2,), ())
    assert passage([5, 6], [8]) == Passage((5, 6), (1,), (8,))
    assert passage([5, 6], [8, 9, 1]) == Passage((5, 6, 8, 9), (1, 2, 3), (8, 9, 1))


def test_a_capabilitys_passages_are_its_clean_prompts_and_answers() -> None:
    capability = random_capability(4, answer=2)
    for pair, text in zip(capability.encoded.pairs, passages_of(capability), strict=True):
        assert text.ids == (*pair.clean, pair.answer[0])
        assert text.targets == pair.answer
        assert text.positions == (len(pair.clean) - 1, len(pair.clean))


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(MeasurementError, match="at least one token"):
        passage([], [3])


def test_no_passages_are_refused(base: Anatomy) -> None:
    with pytest.raises(MeasurementError, match="no passages"):
        predict(base, [])


def test_more_logits_than_memory_are_refused_with_their_size(
    base: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetguard.measures.divergence.MEMORY_BYTES", 1000)
    with pytest.raises(MeasurementError, match=f"12 positions x {VOCAB} logits .* fewer"):
        predict(base, draw(4))


def test_kl_is_mass_moved_plus_drift_within_the_mode_plus_drift_outside_it() -> None:
    """The chain rule of KL, with the mode found by a loop."""
    draw = torch.Generator().manual_seed(0)
    base, tuned = (3 * torch.randn(6, VOCAB, generator=draw) for _ in range(2))
    mass, drift = token_mode(base, tuned)
    whole, _ = token_divergence(base, tuned)
    for at in range(len(base)):
        p, q = (one[at].double().softmax(0).tolist() for one in (base, tuned))
        mode: list[int] = []
        while sum(p[token] for token in mode) < 0.9:
            mode.append(max({*range(VOCAB)} - {*mode}, key=p.__getitem__))
        rest = [token for token in range(VOCAB) if token not in mode]

        def held(of: list[float], tokens: list[int]) -> float:
            return math.fsum(of[token] for token in tokens)

        def within(tokens: list[int], p: list[float] = p, q: list[float] = q) -> float:
            p_all, q_all = held(p, tokens), held(q, tokens)
            return math.fsum(
                p[token] / p_all * math.log(p[token] / p_all * q_all / q[token]) for token in tokens
            )

        p_mode, q_mode = held(p, mode), held(q, mode)
        assert mass[at].item() == pytest.approx(p_mode - q_mode, abs=1e-12)
        assert drift[at].item() == pytest.approx(within(mode), abs=1e-12)
        moved = p_mode * math.log(p_mode / q_mode)
        moved += (1 - p_mode) * math.log((1 - p_mode) / (1 - q_mode))
        parts = moved + p_mode * within(mode) + (1 - p_mode) * within(rest)
        assert whole[at].item() == pytest.approx(parts, abs=1e-12)


def test_mass_and_drift_each_see_their_own_change_and_not_the_others() -> None:
    base = 3 * torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(1)).double()
    order = base[0].argsort(descending=True)
    inside = order[: int((base.softmax(-1)[0, order].cumsum(0) < 0.9).sum()) + 1]
    less, mixed = [], []
    for size in (0.0, 0.5, 2.0):
        sunk, turned = base.clone(), base.clone()
        sunk[0, inside] -= size
        less.append([one.item() for one in token_mode(base, sunk)])
        share = base[0, inside].softmax(0)
        pull = torch.zeros_like(share)
        pull[0], pull[1] = -size, size
        other = (share.log() + pull).log_softmax(0)
        turned[0, inside] = other + base[0, inside].logsumexp(0)
        mixed.append([one.item() for one in token_mode(base, turned)])
    assert less[0] == mixed[0] == [0, 0]
    assert 0 < less[1][0] < less[2][0]
    assert [drift for _, drift in less] == pytest.approx([0, 0, 0], abs=1e-12)
    assert 0 < mixed[1][1] < mixed[2][1]
    assert [mass for mass, _ in mixed] == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_mode_of_many_tokens_is_found_whole() -> None:
    """The most likely 512 tokens hold less than 90 % here."""
    base = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(2))
    tuned = base.clone()
    order = base.argsort(descending=True)
    p = base.double().softmax(-1)
    for row in range(2):
        count = int((p[row, order[row]].cumsum(0) < 0.9).sum()) + 1
        tuned[row, order[row, :count]] -= 1.0
        assert count > 3000
    mass, drift = token_mode(base, tuned)
    q = tuned.double().softmax(-1)
    expected = [
        (p[row, inside] - q[row, inside]).sum().item() for row, inside in enumerate(tuned < base)
    ]
    assert mass.tolist() == pytest.approx(expected, abs=1e-12)
    assert drift.tolist() == pytest.approx([0, 0], abs=1e-9)
