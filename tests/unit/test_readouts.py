"""Readouts against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forgetguard.capabilities.readouts import READOUTS, logit_diff, logprob, most_likely
from forgetguard.errors import CapabilityError

LOGITS = torch.tensor([[[0.0, math.log(3.0), math.log(4.0)], [math.log(2.0), 0.0, 0.0]]])


def test_logit_diff_is_the_difference_of_two_logits() -> None:
    value = logit_diff(LOGITS[:, :1], torch.tensor([[2]]), torch.tensor([[0]]))
    assert value.item() == pytest.approx(math.log(4.0))


def test_logprob_is_the_mean_over_the_answers_tokens() -> None:
    # Probabilities 3/8 and 2/4.
    value = logprob(LOGITS, torch.tensor([[1, 0]]), None)
    assert value.item() == pytest.approx((math.log(3 / 8) + math.log(1 / 2)) / 2)


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
    told = {
        name: (one.needs_distractor, one.single_token, one.signed, one.saturates)
        for name, one in READOUTS.items()
    }
    assert told == {"logit_diff": (True, True, True, False), "logprob": (False, False, False, True)}
