"""One forward pass of a causal language model, with logits only where a readout reads them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.patching.hooks import hooked, on_input


def forward(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    *,
    past: Any = None,
) -> Float[Tensor, "row readout vocab"]:
    """Logits at `positions` (counted within `ids`), in the model's dtype.

    Rows have one length, so there is no padding and no attention mask. Only the hidden states of
    `positions` reach the unembedding.
    """
    index = torch.tensor(list(positions))
    slices = on_input(lambda hidden: hidden.index_select(1, index.to(hidden.device)))
    extra: dict[str, Any] = {"use_cache": past is not None}
    if past is not None:
        extra[_cache_argument(anatomy.model)] = past
    with hooked(before=[(anatomy.unembedding, slices)], after=[]):
        output = anatomy.model(input_ids=ids.to(input_device(anatomy)), **extra)
    logits = output.logits
    assert isinstance(logits, Tensor)
    return logits


def _cache_argument(model: nn.Module) -> str:
    """What a model's forward pass calls its cache: `cache` since transformers 5.24."""
    known = inspect.signature(model.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def input_device(anatomy: Anatomy) -> torch.device:
    """Where the model takes its token ids: the device of its embedding."""
    embedding = anatomy.model.get_input_embeddings()  # type: ignore[operator]
    device = next(embedding.parameters()).device
    assert isinstance(device, torch.device)
    return device


def check_finite(logits: Tensor, what: str) -> None:
    """Raises MeasurementError where `logits` are not all finite."""
    if not torch.isfinite(logits).all():
        raise MeasurementError(
            f"{what} gave logits that are NaN or infinite; no number can be read from it. "
            "Try --forgetguard-dtype float32 (float16 overflows in some models)"
        )


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 matrix products in float32, not TF32, while inside: on GPUs TF32 keeps 10 bits of
    mantissa, which is of the size of the effects that a gate measures."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


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
