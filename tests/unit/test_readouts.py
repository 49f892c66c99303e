"""Readouts against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forgetguard.capabilities.batches import PAD
from forgetguard.capabilities.readouts import (
    READOUTS,
    log_odds,
    logit_diff,
    logprob,
    margin,
    most_likely,
)
from forgetguard.errors import CapabilityError

LOGITS = torch.tensor([[[0.0, math.log(3.0), math.log(4.0)], [math.log(2.0), 0.0, 0.0]]])


def test_logit_diff_is_the_difference_of_two_logits() -> None:
    value = logit_diff(LOGITS[:, :1], torch.tensor([[2]]), torch.tensor([[0]]))
    assert value.item() == pytest.approx(math.log(4.0))


def test_logprob_is_the_mean_over_the_answers_tokens() -> None:
    # Probabilities 3/8 and 2/4.
    value = logprob(LOGITS, torch.tensor([[1, 0]]), None)
    assert value.item() == pytest.approx((math.log(3 / 8) + math.log(1 / 2)) / 2)


def test_margin_is_the_lead_over_the_best_other_token_in_standard_deviations() -> None:
    # Mean 2, variance (4 + 0 + 0 + 4) / 4.
    logits = torch.tensor([[[0.0, 2.0, 2.0, 4.0]]])
    spread = math.sqrt(2)
    for token, lead in enumerate((-4.0, -2.0, -2.0, 2.0)):
        value = margin(logits, torch.tensor([[token]]), None)
        assert value.item() == pytest.approx(lead / spread)
    assert margin(torch.ones(1, 1, 4), torch.tensor([[2]]), None).item() == 0


@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(0, 2))
def test_margin_is_moved_by_no_scale_and_no_shift(scale: float, shift: float, y: int) -> None:
    answer, logits = torch.tensor([[y]]), LOGITS[:, :1].double()
    expected = margin(logits, answer, None).item()
    assert margin(scale * logits + shift, answer, None).item() == pytest.approx(
        expected, rel=1e-3, abs=1e-4
    )
    # Whatever is in the distractor's place: another token that overtakes the answer is seen.
    assert (expected > 0) == bool(most_likely(logits, answer)[0])


def test_margin_refuses_answers_of_several_tokens() -> None:
    with pytest.raises(CapabilityError, match="logprob"):
        margin(LOGITS, torch.tensor([[1, 2]]), None)


def test_a_hopeless_token_is_not_left_out_of_the_mean() -> None:
    logits = torch.tensor([[[0.0, -200.0], [0.0, 0.0]]])
    value = logprob(logits, torch.tensor([[1, 0]]), None)
    assert value.item() == pytest.approx((-200.0 + math.log(0.5)) / 2, rel=1e-6)


def test_top1_needs_every_token_to_be_the_most_likely() -> None:
    assert most_likely(LOGITS, torch.tensor([[2, 0]]))[0].item()
    assert not most_likely(LOGITS, torch.tensor([[2, 1]]))[0].item()


@pytest.mark.parametrize(
    ("answer", "token"), [((2, 0), 0), ((2, 1), 0), ((1, 0), 2), ((1, 1), 2)], ids=str
)
def test_what_is_said_is_the_first_token_that_is_not_the_answers(
    answer: tuple[int, int], token: int
) -> None:
    assert most_likely(LOGITS, torch.tensor([answer]))[1].item() == token


@pytest.mark.parametrize(
    ("answer", "distractor"),
    [([[1, 2]], [[0, 0]]), ([[1]], None)],
)
def test_logit_diff_refuses_what_it_cannot_score(
    answer: list[list[int]], distractor: list[list[int]] | None
) -> None:
    other = None if distractor is None else torch.tensor(distractor)
    with pytest.raises(CapabilityError, match="logprob"):
        logit_diff(LOGITS, torch.tensor(answer), other)


@given(st.floats(-50, 50), st.integers(0, 2), st.integers(0, 2))
def test_readouts_do_not_change_when_all_logits_shift(shift: float, y: int, other: int) -> None:
    def both(logits: Tensor) -> tuple[float, float]:
        answer, distractor = torch.tensor([[y]]), torch.tensor([[other]])
        return (
            logit_diff(logits, answer, distractor).item(),
            logprob(logits, answer, distractor).item(),
        )

    moved = both(LOGITS[:, :1].double() + shift)
    assert moved == pytest.approx(both(LOGITS[:, :1].double()), abs=1e-9)


def test_the_table_says_what_a_readout_needs_and_where_it_is_blind() -> None:
    assert READOUTS["logit_diff"].score is logit_diff
    assert READOUTS["logprob"].score is logprob
    assert READOUTS["margin"].score is margin
    told = {
        name: (one.needs_distractor, one.single_token, one.signed, one.saturates)
        for name, one in READOUTS.items()
    }
    assert told == {
        "logit_diff": (True, True, True, False),
        "logprob": (False, False, False, True),
        "margin": (False, True, False, False),
        "log_odds": (True, True, True, False),
    }


@given(data=st.data())
def test_log_odds_is_the_log_of_two_sums_of_probabilities(data: st.DataObject) -> None:
    """Against a softmax whose terms are added one by one, in float64."""
    ids = data.draw(st.permutations(range(12)))
    cut = data.draw(st.integers(1, 10))
    valid, invalid = ids[:cut], ids[cut : cut + data.draw(st.integers(1, 12 - cut))]
    values = data.draw(st.lists(st.floats(-20, 20), min_size=12, max_size=12))
    weights = [math.exp(value) for value in values]
    wanted = math.log(sum(weights[i] / sum(weights) for i in valid))
    wanted -= math.log(sum(weights[i] / sum(weights) for i in invalid))

    def padded(options: list[int]) -> Tensor:
        return torch.tensor([[*options, *[PAD] * (12 - len(options))]])

    logits = torch.tensor([[values]], dtype=torch.float64)
    found = log_odds(logits, padded(valid), padded(invalid))
    assert found.item() == pytest.approx(wanted, abs=1e-9)


def test_log_odds_of_one_answer_against_one_is_the_logit_diff() -> None:
    answer, distractor = torch.tensor([[2]]), torch.tensor([[0]])
    one = log_odds(LOGITS[:, :1], answer, distractor)
    assert one.item() == pytest.approx(logit_diff(LOGITS[:, :1], answer, distractor).item())


def test_log_odds_refuses_what_it_cannot_score() -> None:
    with pytest.raises(CapabilityError, match="use readout: logprob"):
        log_odds(LOGITS, torch.tensor([[1, 2]]), torch.tensor([[0, 0]]))
    with pytest.raises(CapabilityError, match="use readout: logprob"):
        log_odds(LOGITS[:, :1], torch.tensor([[1]]), None)


def test_top1_of_several_valid_answers_is_any_of_them() -> None:
    answer = torch.tensor([[0]])
    for valid, right in (([[0, 2, PAD]], True), ([[0, 1, PAD]], False)):
        found, said = most_likely(LOGITS[:, :1], answer, torch.tensor(valid))
        assert (found.item(), said.item()) == (right, 2)
