"""Divergences agree with loops over the vocabulary, and each estimates what its name says."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from architectures import VOCAB, build
from random_pairs import random_capability
from torch.distributions import Categorical, kl_divergence

from examples.studies.drift.sampled import Scores, sampled_divergence, score_completions
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import (
    Passage,
    divergence,
    passage,
    passages_of,
    predict,
    token_divergence,
)

FEW = 5  # ids of the model small enough to write down all it can say


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small models are faster so, and two workers do not fight for the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    found = divergence(predict(base, texts), tuned)
    for number, text in enumerate(texts):
        mine = found.passage == number
        assert found.forward[mine] == pytest.approx(naive(base, tuned, text), rel=1e-5)
        assert found.reverse[mine] == pytest.approx(naive(tuned, base, text), rel=1e-5)
        assert found.forward_by_passage[number] == pytest.approx(found.forward[mine].mean())
        assert found.reverse_by_passage[number] == pytest.approx(found.reverse[mine].mean())
    assert found.vocabulary == VOCAB
    assert not found.cut_base.any()
    assert not found.cut_tuned.any()


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
    found = divergence(predict(locate(model), texts), locate(copy.deepcopy(model)))
    assert not found.forward.any()
    assert not found.reverse.any()


def test_either_model_may_be_kept(base: Anatomy, tuned: Anatomy) -> None:
    texts = draw(5)
    one = divergence(predict(base, texts), tuned)
    other = divergence(predict(tuned, texts), base, kept_is="tuned")
    assert np.array_equal(one.forward, other.forward)
    assert np.array_equal(one.reverse, other.reverse)
    assert not np.allclose(one.forward, one.reverse)


def test_logits_kept_in_a_file_give_the_same(base: Anatomy, tuned: Anatomy, tmp_path: Path) -> None:
    texts = draw(5)
    file = tmp_path / "logits"
    kept = predict(base, texts, file=file, memory=0)
    assert file.stat().st_size == 15 * VOCAB * 4
    expected = divergence(predict(base, texts), tuned)
    assert np.array_equal(divergence(kept, tuned).forward, expected.forward)


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
    found = divergence(predict(base, texts), locate(grown))
    assert found.vocabulary == VOCAB
    assert found.forward.max() < 1e-9
    assert not found.cut_base.any()
    for number, text in enumerate(texts):
        logits = grown(torch.tensor([text.ids])).logits[0, list(text.positions)]
        beyond = logits.softmax(-1)[:, VOCAB:].sum(-1)
        assert found.cut_tuned[found.passage == number] == pytest.approx(beyond.numpy(), rel=1e-4)
    assert found.cut_tuned.min() > 0.001
    back = divergence(predict(locate(grown), texts), base, kept_is="tuned")
    assert np.array_equal(back.cut_tuned, found.cut_tuned)


def test_a_vocabulary_may_be_given_but_not_a_larger_one(base: Anatomy, tuned: Anatomy) -> None:
    texts = draw(2)
    kept = predict(base, texts)
    found = divergence(kept, tuned, vocabulary=50)
    logits = [one.model(torch.tensor([texts[0].ids])).logits[0, 3, :50] for one in (base, tuned)]
    expected = kl_divergence(*(Categorical(logits=row.double()) for row in logits))
    assert found.vocabulary == 50
    assert found.forward[0] == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(MeasurementError, match=f"vocabulary=200, but .* {VOCAB} ids"):
        divergence(kept, tuned, vocabulary=200)


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

    exact = divergence(predict(base, texts), tuned)
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


def test_more_logits_than_memory_are_refused_with_their_size(base: Anatomy) -> None:
    with pytest.raises(MeasurementError, match=f"12 positions x {VOCAB} logits .* give file="):
        predict(base, draw(4), memory=1000)


def test_logits_that_are_not_finite_are_refused(base: Anatomy) -> None:
    broken = copy.deepcopy(base.model)
    with torch.no_grad():
        broken.get_output_embeddings().weight[3] = math.inf  # type: ignore[operator, union-attr]
    with pytest.raises(MeasurementError, match="NaN or infinite"):
        predict(locate(broken), draw(2))


def test_passages_without_completions_cannot_be_scored(base: Anatomy) -> None:
    with pytest.raises(MeasurementError, match="passage 1 has no completion"):
        score_completions(base, [passage([1], [2]), passage([1])])


def test_completions_of_ids_that_are_not_compared_are_refused(base: Anatomy) -> None:
    with pytest.raises(MeasurementError, match="holds id 60, beyond the 50 ids"):
        score_completions(base, [passage([1], [2, 60])], vocabulary=50)


def test_scores_of_other_passages_are_refused() -> None:
    one, other = (Scores(np.zeros(n), np.zeros(n, dtype=np.int64)) for n in (2, 3))
    with pytest.raises(MeasurementError, match="same completions"):
        sampled_divergence(one, other, drawn_from="base")
