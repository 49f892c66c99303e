"""What exact patching would take: the arithmetic is counted, the rate is measured."""

from __future__ import annotations

import pytest
import torch
from architectures import build
from random_pairs import random_capability
from torch import nn

from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head
from forgetguard.discovery import cost


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return locate(build("gpt2"))


def test_a_run_costs_the_layers_from_its_member_on_at_the_positions_that_differ(
    anatomy: Anatomy,
) -> None:
    """Four pairs of 6 tokens that differ from the third on; clean and counterfactual in full."""
    capability = random_capability(4, lengths=(6,))
    layers = anatomy.n_layers
    assert {batch.start for batch in capability.batches} == {2}
    both = 2 * 4 * 6 * layers
    first, last = Head(0, 0), Head(layers - 1, 0)
    assert cost.token_layers(anatomy, capability, [first]) == both + 4 * 4 * layers
    assert cost.token_layers(anatomy, capability, [first, last]) == both + 4 * 4 * (layers + 1)


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rate is known of the session's model."""
    monkeypatch.setattr(cost, "_RATES", {})


def test_the_estimate_is_of_half_of_the_pairs_at_the_rate_that_was_measured(
    anatomy: Anatomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    capability = random_capability(4, lengths=(6,))
    times = iter([10.0, 10.5])  # half a second for 4 x 6 tokens through every layer
    monkeypatch.setattr(cost, "clock", lambda _: lambda: next(times))
    members = anatomy.heads
    expected = cost.token_layers(anatomy, capability, members) / 2
    seconds = cost.exact_seconds(anatomy, capability, members)
    assert seconds == pytest.approx(expected / (4 * 6 * anatomy.n_layers / 0.5))


def test_the_rate_is_read_on_a_part_of_the_largest_batch(anatomy: Anatomy) -> None:
    capability = random_capability(100, lengths=(6, 7))
    seen: list[int] = []

    def count(_: nn.Module, __: object, given: dict[str, torch.Tensor]) -> None:
        seen.append(given["input_ids"].numel())

    handle = anatomy.model.register_forward_pre_hook(count, with_kwargs=True)
    assert cost.exact_seconds(anatomy, capability, [Head(0, 0)]) > 0
    assert cost.exact_seconds(anatomy, random_capability(4, lengths=(6,)), [Head(0, 0)]) > 0
    handle.remove()
    assert max(one.clean.numel() for one in capability.batches) == 50 * 7
    assert seen == [256 // 7 * 7]  # once of a model
