"""Logits of one small batch: by them two roads to one model are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ROWS, _POSITIONS = 2, 8

# How far apart the logits of an adapter and of its merged twin may be, in standard deviations of
# the logits. Measured on tiny:base, a 24-layer Llama and a 12-layer GPT-2 with LoRA of three sizes
# on linear layers and embeddings, in units of the number format's epsilon: at most 36 in float32
# and 16 in the 16-bit formats; allowed are 2048 and 64. A wrong merge is off by the adapter.
APART = {"float32": 2.4e-4, "bfloat16": 0.5, "float16": 0.06}
# Two ways of computing one model in float32, as a weight and the parts it was taken apart into.
IDLE = 1e-5


def small_batch_logits(model: PreTrainedModel) -> Float[Tensor, "row position vocabulary"]:
    """Logits in float32 on the CPU of 16 ids that are spread over the vocabulary. [2, 8, words]"""
    embedding = cast("Tensor", model.get_input_embeddings().weight)
    ids = torch.linspace(0, embedding.shape[0] - 1, _ROWS * _POSITIONS).round().long()
    with torch.no_grad():
        logits: Tensor = model(
            input_ids=ids.view(_POSITIONS, _ROWS).T.to(embedding.device), use_cache=False
        ).logits
    return logits.to("cpu", torch.float32)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two such logits, in standard deviations of the first."""
    return 0.0 if torch.equal(one, other) else float((one - other).abs().max() / one.std())
