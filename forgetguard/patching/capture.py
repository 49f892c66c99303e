"""Reads the activations z of heads, the outputs of MLPs, and the logits, of a clean run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy, AttentionSite
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.patching.forward import forward
from forgetguard.patching.hooks import PostHook, PreHook, first_output, first_tensor, hooked


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A clean run: z of the asked heads, [row, pos, head_dim], the outputs of the asked MLPs,
    [row, pos, d_model], and the logits, [row, readout, vocab]."""

    z: dict[Member, Float[Tensor, "row pos width"]]
    logits: Float[Tensor, "row readout vocab"]


def capture(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    members: Iterable[Member],
    *,
    past: Any = None,
) -> Captured:
    """Run the model on `ids` and keep z of `members` (on the model's device) and the logits at
    `positions`. `past`: a cache of the positions before `ids` (see `forward`).

    The same rows in the same batch give the same bits for the same weights: what is captured from a
    byte copy of a model equals what is captured from the model.
    """
    z: dict[Member, Tensor] = {}
    before: list[tuple[nn.Module, PreHook]] = []
    after: list[tuple[nn.Module, PostHook]] = []
    by_layer: dict[int, list[Head]] = {}
    for member in members:
        if isinstance(member, Mlp):
            after.append((anatomy.mlp(member.layer), _mlp_reader(z, member, len(ids))))
        else:
            by_layer.setdefault(member.layer, []).append(member)
    for layer, wanted in by_layer.items():
        site = anatomy.site(layer)
        before.append((site.output_projection, _head_reader(z, site, wanted)))
    with torch.no_grad(), hooked(before=before, after=after):
        logits = forward(anatomy, ids, positions, past=past)
    return Captured(z, logits)


def _head_reader(z: dict[Member, Tensor], site: AttentionSite, wanted: list[Head]) -> PreHook:
    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = first_tensor(args, kwargs)
        for head in wanted:
            z[head] = hidden[..., site.slice(head)].clone()

    return read


def _mlp_reader(z: dict[Member, Tensor], member: Mlp, rows: int) -> PostHook:
    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        z[member] = by_row(first_output(output), rows).clone()

    return read


def by_row(output: Tensor, rows: int) -> Float[Tensor, "row pos d_model"]:
    """An MLP's output with its rows apart (OPT's MLP is given all tokens in one axis)."""
    return output.unflatten(0, (rows, -1)) if output.dim() == 2 else output
