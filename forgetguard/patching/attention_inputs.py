"""What each attention call is given, and what its heads would do with a query, key or value of
another run: read through transformers' attention interface, whatever the architecture.

Every model that uses the interface calls one registered function a layer with query, key and value
as they are after position encoding. While a `with` block lasts, that function is wrapped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import AnatomyError

INPUTS = ("query", "key", "value")

_Attention = Callable[..., tuple[Tensor, Any]]
_Registry = MutableMapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionCall:
    """One layer's attention in one run.

    query is [row, head, pos, dim]; key and value [row, kv head, pos, dim], kv heads shared by
    groups of heads; output, which is the graph's own where there is one, [row, pos, head, dim].
    `attend` computes another output from another query, key and value, the mask as it was.
    """

    query: Float[Tensor, "row head pos dim"]
    key: Float[Tensor, "row kv_head pos dim"]
    value: Float[Tensor, "row kv_head pos value_dim"]
    output: Float[Tensor, "row pos head value_dim"]
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]

    def inputs(self) -> dict[str, Tensor]:
        """By the names in INPUTS, in the order that `attend` takes."""
        return {"query": self.query, "key": self.key, "value": self.value}


def exchanged(
    call: AttentionCall, other: AttentionCall, name: str
) -> Float[Tensor, "row pos head value_dim"]:
    """The exact change of every head's output when its query, key or value (`name`) is `other`'s,
    at all positions: attention weights are computed anew, as the QK fix of AtP* does (Kramar et
    al., arXiv 2403.00745). Heads that share a key or value each get their own copy
    of the exchange."""
    inputs = {**call.inputs(), name: other.inputs()[name]}
    with torch.no_grad():
        return call.attend(*inputs.values()) - call.output.detach()


def linearised(
    call: AttentionCall, other: AttentionCall, name: str
) -> Float[Tensor, "row pos head value_dim"]:
    """The linear term of `exchanged`: the directional derivative of every head's output along the
    change of its query, key or value. What attribution patching without the QK fix takes."""
    change = other.inputs()[name] - call.inputs()[name]

    def output(varied: Tensor) -> Tensor:
        return call.attend(*{**call.inputs(), name: varied}.values())

    # Differentiated twice (the derivative's transpose, transposed), which only this kernel can be.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        _, tangent = torch.autograd.functional.jvp(output, call.inputs()[name], change)
    assert isinstance(tangent, Tensor)
    return tangent.detach()


@contextmanager
def watched_attention(anatomy: Anatomy) -> Iterator[dict[int, AttentionCall]]:
    """While inside, a forward pass of the model leaves each layer's attention call in the mapping
    this yields. Other models are not touched, and nothing stays registered.

    Raises:
        AnatomyError: the model computes its attention without the interface.
    """
    calls: dict[int, AttentionCall] = {}
    layer_of: dict[nn.Module, int] = {}
    wrapped: list[tuple[_Registry, str]] = []
    for layer, site in enumerate(anatomy.sites):
        if site is None:
            continue
        layer_of |= dict.fromkeys(site.attention.modules(), layer)
        found = _registry(anatomy, site.attention)
        if not any(found[0] is registry and found[1] == key for registry, key in wrapped):
            wrapped.append(found)
    with ExitStack() as stack:
        for registry, key in wrapped:
            stack.enter_context(
                _overridden(registry, key, _watching(registry, key, layer_of, calls))
            )
        yield calls


def check_watched(anatomy: Anatomy, calls: dict[int, AttentionCall]) -> None:
    """After a forward pass: every layer that has heads must have been seen, head by head.

    Raises:
        AnatomyError: one was not.
    """
    for layer, site in enumerate(anatomy.sites):
        if site is None:
            continue
        shape = None if layer not in calls else tuple(calls[layer].output.shape[2:])
        if shape != (site.n_heads, site.head_dim):
            raise _without_interface(
                anatomy, f"layer {layer} did not attend through it head by head"
            )


def _registry(anatomy: Anatomy, attention: nn.Module) -> tuple[_Registry, str]:
    """The registry that this attention looks its function up in, and the key."""
    registry = _global(attention, "ALL_ATTENTION_FUNCTIONS")
    key = getattr(getattr(attention, "config", None), "_attn_implementation", None)
    if not isinstance(registry, MutableMapping) or not isinstance(key, str):
        raise _without_interface(anatomy, f"{type(attention).__name__} does not use it")
    if key not in registry and _global(attention, "eager_attention_forward") is None:
        raise _without_interface(anatomy, f"its implementation {key!r} is not registered")
    return registry, key


def _global(module: nn.Module, name: str) -> Any:
    """A global of the file that defines the module's class, or a class that it derives from."""
    for cls in type(module).__mro__:
        found = getattr(sys.modules.get(cls.__module__), name, None)
        if found is not None:
            return found
    return None


def _without_interface(anatomy: Anatomy, why: str) -> AnatomyError:
    return AnatomyError(
        "the queries, keys and values of this model's heads cannot be exchanged: "
        f"{type(anatomy.model).__name__} does not compute its attention through transformers' "
        f'attention interface ({why}); use nodes="output", which needs only the heads\' outputs'
    )


@contextmanager
def _overridden(registry: _Registry, key: str, function: _Attention) -> Iterator[None]:
    """Let `registry` give `function` for `key` while inside. Only this registry object is changed,
    not what all registries share."""
    local: dict[str, Any] = registry._local_mapping  # type: ignore[attr-defined]
    missing = object()
    before = local.get(key, missing)
    registry[key] = function
    try:
        yield
    finally:
        if before is missing:
            del registry[key]
        else:
            registry[key] = before


def _watching(
    registry: _Registry, key: str, layer_of: dict[nn.Module, int], calls: dict[int, AttentionCall]
) -> _Attention:
    """The function registered under `key`, which also notes what this model's layers call it with.

    Eager attention is registered nowhere: each model's file has its own.
    """
    registered = registry.get(key)

    def watching(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        original = registered or _global(module, "eager_attention_forward")
        output, weights = original(module, query, key, value, *args, **kwargs)
        if module in layer_of:

            def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                found = original(module, query, key, value, *args, **kwargs)[0]
                assert isinstance(found, Tensor)
                return found

            inputs = query.detach(), key.detach(), value.detach()
            calls[layer_of[module]] = AttentionCall(*inputs, output, attend)
        return output, weights

    return watching


def without_graph(calls: dict[int, AttentionCall]) -> dict[int, AttentionCall]:
    """The same calls, free of the graph that their outputs belong to."""
    return {layer: replace(call, output=call.output.detach()) for layer, call in calls.items()}
