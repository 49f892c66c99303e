"""Keys and values of a shared prefix of positions, so that patched runs, and passes of other
prompts that begin alike, start after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.patching.capture import Captured, capture
from forgetguard.patching.clean import CleanPass, clean_pass
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
    return _cut(cache, start, start, anatomy.n_layers)


def _cut(cache: Cache, positions: int, start: int, layers: int) -> Prefix | None:
    """What a cache of so many positions holds before `start`, where all `layers` keep all of it."""
    prefix = [
        (layer.keys[..., :start, :].clone(), layer.values[..., :start, :].clone())
        for layer in cache.layers
        if isinstance(layer, DynamicLayer) and layer.get_seq_length() == positions
        if layer.keys is not None and layer.values is not None
    ]
    return prefix if len(prefix) == layers else None


def clean_and_prefix(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    members: Sequence[Member],
    start: int,
    *,
    own: Mapping[Member, Float[Tensor, "head_dim d_model"]] | None = None,
) -> CleanPass:
    """`clean_pass`, with the prefix before `start` read in the same pass where that is possible."""
    if start and anatomy.plain_layers:
        cache = DynamicCache()
        try:
            passed = clean_pass(anatomy, ids, positions, members, own=own, past=cache)
        except ValueError:  # a model with a cache of its own
            pass
        else:
            passed.prefixes[start] = _cut(cache, ids.shape[1], start, anatomy.n_layers)
            return passed
    return clean_pass(anatomy, ids, positions, members, own=own)


def begun(clean: CleanPass, start: int, rows: slice = slice(None)) -> tuple[int, Cache | None]:
    """Where a pass of prompts begins that equal `rows` of the clean ones before `start`, and its
    cache: at 0, with none, where no prefix is known."""
    prefix = clean.prefixes.get(start)
    if prefix is None:
        return 0, None
    return start, prefix_cache(prefix, LiveRows(torch.arange(len(clean.ids))[rows]))


def capture_beside(
    clean: CleanPass, ids: Int[Tensor, "row pos"], start: int, members: Sequence[Member]
) -> Captured:
    """`capture` of prompts that equal the clean ones before `start`: of what they have in common it
    is what the clean pass was, where its prefix is known."""
    first, past = begun(clean, start if clean.z.keys() >= {*members} else 0)
    positions = [position - first for position in clean.positions]
    found = capture(clean.anatomy, ids[:, first:], positions, members, past=past)
    if not first:
        return found
    z = {one: torch.cat([clean.z[one][:, :first], z], dim=1) for one, z in found.z.items()}
    return Captured(z, found.logits)


def prefix_cache(prefix: Prefix, live: LiveRows) -> Cache:
    """A cache that gives `prefix` to the rows of `live`, for one forward pass of a wavefront."""
    return Cache(layers=[PrefixLayer(keys, values, live) for keys, values in prefix])
