"""What a head does wrong itself: the tuned head's weights on the base's own inputs.

A head's contribution may differ because its weights do, or because heads before it feed it other
inputs. Own damage is DCV's numerator with r_h computed by the tuned model's attention of that layer
(its query, key, value and output weights) from what the base's attention was given.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, AttentionSite
from forgetguard.anatomy.members import Head, Member
from forgetguard.patching.hooks import PreHook, first_tensor, hooked

Call = tuple[tuple[Any, ...], dict[str, Any]]


def detach_attention(anatomy: Anatomy, layers: Sequence[int]) -> dict[int, AttentionSite]:
    """Copies of the attention of `layers`, adapters as they are switched now, on the CPU: they
    outlive the model, until own damage has been read with them."""
    copies = {}
    for layer in layers:
        site = anatomy.site(layer)
        # One copy of both, so that the projection stays a part of its attention.
        attention, projection = copy.deepcopy((site.attention, site.output_projection))
        _unhook(attention)
        attention = attention.cpu().requires_grad_(False)
        copies[layer] = AttentionSite(attention, projection, site.n_heads, site.head_dim)
    return copies


def _unhook(attention: nn.Module) -> None:
    """Take off what accelerate puts on modules of a model spread over devices."""
    if any(hasattr(module, "_hf_hook") for module in attention.modules()):
        from accelerate.hooks import remove_hook_from_module

        remove_hook_from_module(attention, recurse=True)


def attention_calls(
    anatomy: Anatomy, layers: Sequence[int], calls: dict[int, Call]
) -> AbstractContextManager[None]:
    """While it is entered, what the model's attention is called with in each of `layers` is kept in
    `calls`: of a clean pass that is run anyway."""

    def keep(layer: int) -> PreHook:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[layer] = args, kwargs

        return hook

    hooks = [(anatomy.site(layer).attention, keep(layer)) for layer in layers]
    return hooked(before=hooks, after=[])


def own_activations(
    attention: Mapping[int, AttentionSite], calls: Mapping[int, Call], heads: Sequence[Head]
) -> dict[Member, Float[Tensor, "row pos head_dim"]]:
    """z of `heads`, on the CPU, computed by another model's `attention` from what this model's is
    given (`attention_calls`)."""
    z: dict[Member, Tensor] = {}
    for layer, (args, kwargs) in calls.items():
        site = attention[layer]
        wanted = [head for head in heads if head.layer == layer]

        def read(
            _: nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            site: AttentionSite = site,
            wanted: list[Head] = wanted,
        ) -> None:
            hidden = first_tensor(args, kwargs)
            z.update({head: hidden[..., site.slice(head)].cpu().clone() for head in wanted})

        device = first_tensor(args, kwargs).device
        with torch.no_grad(), hooked(before=[(site.output_projection, read)], after=[]):
            site.attention.to(device)(*args, **kwargs)
        site.attention.cpu()
    return z
