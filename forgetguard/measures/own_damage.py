"""What a head does wrong itself: the tuned head's weights on the base's own inputs.

A head's contribution may differ because its weights do, or because heads before it feed it other
inputs. Own damage is DCV's numerator with r_h computed by the tuned model's attention of that layer
(its query, key, value and output weights) and by the norm before it, from the base's residual
stream. The norm counts as part of the attention, for its scale may stand in either: a model whose
norms are folded into the matrices behind them does the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, AttentionSite
from forgetguard.anatomy.members import Head, Member
from forgetguard.patching.hooks import (
    PostHook,
    PreHook,
    first_tensor,
    hooked,
    keep_input,
    with_first_tensor,
)


@dataclass(frozen=True, slots=True, eq=False)
class Detached:
    """A copy of one layer's attention, and of the modules beside it that hold no matrix, by name:
    the norms. On the CPU."""

    site: AttentionSite
    norms: Mapping[str, nn.Module]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """What the attention of a layer was called with; and which module beside it gave it its hidden
    states, and from what, where one did (its norm)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    norm: str = ""
    before: Tensor | None = None


def detach_attention(anatomy: Anatomy, layers: Sequence[int]) -> dict[int, Detached]:
    """Copies of the attention of `layers`, adapters as they are switched now: they outlive the
    model, until own damage has been read with them."""
    copies = {}
    for layer in layers:
        site = anatomy.site(layer)
        # One copy of both, so that the projection stays a part of its attention.
        attention, projection = copy.deepcopy((site.attention, site.output_projection))
        norms = {
            name: _on_its_own(copy.deepcopy(module))
            for name, module in anatomy.layers[layer].named_children()
            if all(one.dim() < 2 for one in module.parameters())
        }
        own = AttentionSite(_on_its_own(attention), projection, site.n_heads, site.head_dim)
        copies[layer] = Detached(own, norms)
    return copies


def _on_its_own(module: nn.Module) -> nn.Module:
    """On the CPU, without what accelerate puts on modules of a model spread over devices."""
    if any(hasattr(part, "_hf_hook") for part in module.modules()):
        from accelerate.hooks import remove_hook_from_module

        remove_hook_from_module(module, recurse=True)
    return module.cpu().requires_grad_(False)


@contextmanager
def attention_calls(
    anatomy: Anatomy, layers: Sequence[int], calls: dict[int, Call]
) -> Iterator[None]:
    """While it is entered, what the model's attention is called with in each of `layers` is kept in
    `calls`: of a clean pass that is run anyway."""
    # What the layer's other modules returned before its attention was called.
    returned: dict[int, list[tuple[str, Tensor, Any]]] = {layer: [] for layer in layers}

    def keep(layer: int) -> PreHook:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = first_tensor(args, kwargs)
            calls[layer] = Call(args, kwargs)
            for name, before, output in returned.pop(layer, []):
                if output is given:
                    calls[layer] = Call(args, kwargs, name, before)

        return hook

    def note(layer: int, name: str) -> PostHook:
        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if layer in returned and args and isinstance(args[0], Tensor):
                returned[layer].append((name, args[0], output))

        return hook

    before = [(anatomy.site(layer).attention, keep(layer)) for layer in layers]
    after = [
        (module, note(layer, name))
        for layer in layers
        for name, module in anatomy.layers[layer].named_children()
        if module is not anatomy.site(layer).attention
    ]
    with hooked(before=before, after=after):
        yield


def own_activations(
    attention: Mapping[int, Detached],
    calls: Mapping[int, Call],
    heads: Sequence[Head],
    matched: Mapping[Head, Head],
) -> dict[Member, Float[Tensor, "row pos head_dim"]]:
    """z of `heads`, or of the heads `matched` with them, on the CPU, computed by another model's
    `attention` from what this model's is given (`attention_calls`)."""
    z: dict[Member, Tensor] = {}
    for layer, call in calls.items():
        site = attention[layer].site
        hidden = activations(attention[layer], call)
        for head in heads:
            if head.layer == layer:
                z[head] = hidden[..., site.slice(matched.get(head, head))].cpu().clone()
    return z


def activations(other: Detached, call: Call) -> Float[Tensor, "row pos heads_x_head_dim"]:
    """z of all heads of a layer, computed by another model's attention from `call`, where that is
    the call of this model's."""
    found: dict[str, Tensor] = {}
    args, kwargs = call.args, call.kwargs
    device = first_tensor(args, kwargs).device
    norm = other.norms.get(call.norm)
    with torch.no_grad():
        if norm is not None and call.before is not None:
            args, kwargs = with_first_tensor(args, kwargs, norm.to(device)(call.before))
            norm.cpu()
        with hooked(before=[(other.site.output_projection, keep_input(found, "z"))], after=[]):
            other.site.attention.to(device)(*args, **kwargs)
        other.site.attention.cpu()
    return found["z"]
