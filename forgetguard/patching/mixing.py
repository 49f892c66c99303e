"""Forward passes in which members' contributions are mixed with those on another prompt: what masks
are learned on.

For every given member r becomes r + m (r' - r), where r is live, so that it sees what was mixed
before it, and r' was cached on the other prompt: m = 1 means REPLACED, m = 0 left clean. Within one
model mixing a head's contribution is mixing its z, all heads of a layer in one operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.patching.capture import by_row
from forgetguard.patching.forward import forward
from forgetguard.patching.gradients import Activations, tapped
from forgetguard.patching.hooks import PostHook, PreHook, hooked, on_input, on_output


@dataclass(frozen=True, slots=True, eq=False)
class SourceCache:
    """What the layers of some members did on a batch of prompts, in the model's dtype.

    heads: by layer, the input of the attention output projection, [row, pos, n_heads * head_dim].
    mlps: by layer, the MLP's output, [row, pos, d_model].
    positions: the positions that are held, and mixed; None is all of them.
    """

    heads: Mapping[int, Float[Tensor, "row pos heads_x_head_dim"]]
    mlps: Mapping[int, Float[Tensor, "row pos d_model"]]
    positions: tuple[int, ...] | None

    def of(self, anatomy: Anatomy, member: Member) -> Float[Tensor, "row pos width"]:
        """One member's part: z of a head, or what an MLP adds to the residual stream."""
        if isinstance(member, Mlp):
            return self.mlps[member.layer]
        return self.heads[member.layer][..., anatomy.site(member.layer).slice(member)]

    def rows(self, index: Int[Tensor, "row"]) -> SourceCache:
        """The same of some rows."""
        return SourceCache(
            {layer: z.index_select(0, index.to(z.device)) for layer, z in self.heads.items()},
            {layer: r.index_select(0, index.to(r.device)) for layer, r in self.mlps.items()},
            self.positions,
        )


def cache_sources(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    members: Sequence[Member],
    *,
    positions: Sequence[int] | None = None,
) -> SourceCache:
    """Run the model once on `ids` and keep what `members` are mixed with, where each layer
    computes.

    Args:
        positions: keep these alone, to mix there alone; by default all.

    Raises:
        AnatomyError: one of `members` is not in the model.
    """
    taps = Activations({}, {})
    with torch.no_grad(), tapped(anatomy, members, taps, len(ids)):
        forward(anatomy, ids, [ids.shape[1] - 1])
    if positions is None:
        return SourceCache(taps.heads, taps.mlps, None)
    held = torch.tensor(list(positions))
    kept = taps.like([one.index_select(1, held.to(one.device)) for one in taps.tensors()])
    return SourceCache(kept.heads, kept.mlps, tuple(positions))


@contextmanager
def mixed(
    anatomy: Anatomy,
    members: Sequence[Member],
    mask: Float[Tensor, "member"],
    sources: SourceCache,
) -> Iterator[None]:
    """Inside, every forward pass of the model on as many rows as `sources` has mixes `members`.

    Args:
        mask: m of each of `members`, on any device; may require grad. 0 and 1 are exact: r and r',
            bit for bit.
        sources: of these members' layers, row by row what the prompts' contributions are mixed
            with.
    """
    of_heads, of_mlps = _by_layer(members)
    before: list[tuple[nn.Module, PreHook]] = []
    after: list[tuple[nn.Module, PostHook]] = []
    for layer, heads in of_heads.items():
        site = anatomy.site(layer)
        places = torch.tensor([place for place, _ in heads], device=mask.device)
        indices = torch.tensor([head.index for _, head in heads], device=mask.device)
        by_head = mask.new_zeros(site.n_heads).index_copy(0, indices, mask.index_select(0, places))
        strength = by_head.repeat_interleave(site.head_dim)
        held = strength, sources.heads[layer], sources.positions
        before.append((site.output_projection, on_input(partial(_mix, held))))
    for layer, place in of_mlps.items():
        held = mask[place : place + 1], sources.mlps[layer], sources.positions
        after.append((anatomy.mlp(layer), on_output(partial(_mix_rows, held))))
    with hooked(before=before, after=after):
        yield


def _by_layer(
    members: Sequence[Member],
) -> tuple[dict[int, list[tuple[int, Head]]], dict[int, int]]:
    """By layer, its heads among `members`, each with its place there, and its MLP's place."""
    heads: dict[int, list[tuple[int, Head]]] = {}
    mlps: dict[int, int] = {}
    for place, member in enumerate(members):
        if isinstance(member, Mlp):
            mlps[member.layer] = place
        else:
            heads.setdefault(member.layer, []).append((place, member))
    return heads, mlps


# What is mixed in: its strength, [width], the source, [row, held, width], and the positions held.
_Held = tuple[Tensor, Tensor, tuple[int, ...] | None]


def _mix_rows(held: _Held, returned: Tensor) -> Tensor:
    """`_mix` of what an MLP returned."""
    return _mix(held, by_row(returned, len(held[1]))).reshape(returned.shape)


def _mix(held: _Held, live: Float[Tensor, "row pos width"]) -> Float[Tensor, "row pos width"]:
    """A new tensor: some models add to what they are given in place."""
    strength, source, positions = held
    strength, source = strength.to(live.device, live.dtype), source.to(live.device)
    if positions is None:
        return torch.lerp(live, source, strength)
    index = torch.tensor(positions, device=live.device)
    part = torch.lerp(live.index_select(1, index), source, strength)
    return live.index_copy(1, index, part)
