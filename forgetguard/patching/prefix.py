"""Keys and values of a shared prefix of positions, so that patched runs start after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from forgetguard.patching.clean import CleanPass
from forgetguard.patching.forward import forward


@dataclass(slots=True)
class LiveRows:
    """Which clean row each row of the batch descends from, as the wavefront grows."""

    index: Int[Tensor, "row"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))


class PrefixLayer(DynamicLayer):
    """One layer's clean keys and values before `start`, handed to every live row.

    Unlike transformers' own cache layers it keeps nothing of what it is given: each patched run
    continues the same clean prefix.
    """

    def __init__(self, keys: Tensor, values: Tensor, live: LiveRows) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.live = keys, values, live
        self._prefix = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._prefix
        rows = self.live.index.to(keys.device)
        return (
            torch.cat([keys.index_select(0, rows), key_states], dim=-2),
            torch.cat([values.index_select(0, rows), value_states], dim=-2),
        )


Prefix = list[tuple[Tensor, Tensor]]  # keys and values of each layer, [row, kv head, pos, dim]


def clean_prefix(clean: CleanPass, start: int) -> Prefix | None:
    """Keys and values of the clean rows before position `start`, or None where the model does not
    keep all of its state in them (recurrent and hybrid models).

    All layers are run, also those before the first patched one: from the clean pass's residual
    stream they could be skipped, but it comes of passes of another shape, and moves last bits.
    """
    if start not in clean.prefixes:
        clean.prefixes[start] = _read(clean, start)
    return clean.prefixes[start]


def _read(clean: CleanPass, start: int) -> Prefix | None:
    anatomy = clean.anatomy
    if not anatomy.plain_layers:
        return None
    cache = DynamicCache()
    try:
        with torch.no_grad():
            forward(anatomy, clean.ids[:, :start], [start - 1], past=cache)
    except ValueError:  # a model with a cache of its own takes no other (MiniMax)
        return None
    found = [
        (layer.keys, layer.values)
        for layer in cache.layers
        if isinstance(layer, DynamicLayer) and layer.get_seq_length() == start
    ]
    prefix = [(keys, values) for keys, values in found if keys is not None and values is not None]
    return prefix if len(prefix) == anatomy.n_layers else None


def prefix_cache(prefix: Prefix, live: LiveRows) -> Cache:
    """A cache that gives `prefix` to the rows of `live`, for one forward pass of a wavefront."""
    return Cache(layers=[PrefixLayer(keys, values, live) for keys, values in prefix])
