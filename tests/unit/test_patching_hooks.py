"""What `with` blocks put on modules is gone after them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forgetguard.patching.hooks import idle


class _Layer(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + 1


@pytest.mark.parametrize("rest", [None, (), (None, None)])
def test_an_idle_module_hands_on_what_it_is_given(rest: tuple[None, ...] | None) -> None:
    layer, hidden = _Layer(), torch.zeros(2)
    with idle({layer: rest}):
        for given in (layer(hidden), layer(hidden_states=hidden)):
            assert (given is hidden) if rest is None else (given == (hidden, *rest))
    assert "forward" not in vars(layer)
    assert torch.equal(layer(hidden), hidden + 1)


def test_a_forward_of_the_modules_own_is_given_back_to_it_even_after_an_error() -> None:
    layer, hidden = _Layer(), torch.zeros(2)

    def own(hidden_states: Tensor) -> Tensor:  # as accelerate puts on modules
        return hidden_states + 2

    layer.forward = own  # type: ignore[method-assign]
    with pytest.raises(AssertionError), idle({layer: None}):
        layer("no hidden states")
    assert layer.forward is own
    assert torch.equal(layer(hidden), hidden + 2)
