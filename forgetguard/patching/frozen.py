"""A model as gradients with respect to activations need it: fixed, and in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode and its parameters take no gradients; afterwards each
    module and parameter is as it was."""
    with ExitStack() as stack:
        for parameter in model.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
        model.eval()
        yield
