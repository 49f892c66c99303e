"""How far the model's next-token distributions are from the base's: exact KL over the vocabulary.

Forward is KL(base || model), which punishes what the base says and the model no longer does;
reverse is KL(model || base), which punishes what the model says and the base would not.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def token_kl(
    logits: Float[Tensor, "*where vocabulary"],
    base_logits: Float[Tensor, "*where vocabulary"],
    direction: str,
) -> Float[Tensor, "*where"]:
    """The KL at each position, in nats, float32 or wider; exactly 0 where the logits are equal.

    Args:
        logits: of the model; the gradient flows into them.
        base_logits: of the base, without gradient.
        direction: `forward` or `reverse`.

    Raises:
        ValueError: another direction.
    """
    model, base = _log_probabilities(logits), _log_probabilities(base_logits).detach()
    if direction == "forward":
        return (base.exp() * (base - model)).sum(-1)
    if direction == "reverse":
        return (model.exp() * (model - base)).sum(-1)
    raise ValueError(f"direction {direction!r} is neither forward nor reverse")


def _log_probabilities(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
