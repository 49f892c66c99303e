"""Takes the plain Hugging Face model out of a TransformerLens TransformerBridge.

TransformerLens has put its own components between the model's modules and chosen another attention
kernel; only the weights are still the model's. So the model is built anew around them.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import nn

from forgetguard.errors import AnatomyError

# Relative to the largest logit. A bridge computes attention in another way and rounds differently:
# at most 1e-6 in float32 on the models of tests/architectures.py.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_LOW_PRECISION_TOLERANCE = 8e-2
_PROBE = tuple(range(3, 11))  # token ids


def is_bridge(model: object) -> bool:
    """Whether `model` is a TransformerBridge. Imports nothing: where TransformerLens was never
    imported there is none."""
    home = sys.modules.get("transformer_lens.model_bridge.transformer_bridge")
    return home is not None and isinstance(model, home.TransformerBridge)


def unwrapped(bridge: Any) -> nn.Module:
    """The plain model of a TransformerBridge, in eval mode and without gradients: transformers' own
    modules on the bridge's weights, which are shared and not copied. The bridge stays as it was.

    Raises:
        AnatomyError: the weights are no longer the model's (compatibility mode folds and centres
            them), or the plain model's logits on them are not the bridge's.
    """
    inner = bridge.original_model
    name = type(inner).__name__
    if getattr(bridge, "compatibility_mode", False):
        raise AnatomyError(
            f"this TransformerBridge of a {name} is in compatibility mode, which rewrites the "
            "weights; hand in a bridge without it, or the checkpoint's folder"
        )
    with torch.device("meta"):
        plain: Any = type(inner)(copy.deepcopy(inner.config))
    _take_tensors(plain, inner)
    plain.eval()
    ids = torch.tensor([_PROBE], device=next(plain.parameters()).device)
    with torch.no_grad():
        theirs, ours = bridge(ids).float(), plain(ids).logits.float()
    tolerance = _TOLERANCE.get(next(plain.parameters()).dtype, _LOW_PRECISION_TOLERANCE)
    difference, scale = (theirs - ours).abs().max().item(), theirs.abs().max().item()
    if not difference <= tolerance * scale:
        raise AnatomyError(
            f"the plain {name} on this TransformerBridge's weights gives other logits than the "
            f"bridge (by {difference:.3g} on {scale:.3g}), so it cannot be said which of them is "
            "meant; hand in the checkpoint's folder"
        )
    return plain  # type: ignore[no-any-return]


def _take_tensors(plain: nn.Module, wrapped: nn.Module) -> None:
    """Give every module of `plain` the tensors of the module that it was wrapped as; what is tied
    stays tied."""
    taken: dict[int, nn.Parameter] = {}
    for path, module in plain.named_modules():
        source = _behind(wrapped)
        for part in path.split(".") if path else ():
            source = _behind(source.get_submodule(part))
        for key, parameter in module._parameters.items():
            if parameter is not None:
                held = source.get_parameter(key)
                module._parameters[key] = taken.setdefault(
                    id(held), nn.Parameter(held.detach(), requires_grad=False)
                )
        module._buffers.update({key: source._buffers[key] for key in module._buffers})


def _behind(module: nn.Module) -> nn.Module:
    """The module of the model that a component of TransformerLens stands for."""
    original = module._modules.get("_original_component")
    return module if original is None else _behind(original)
