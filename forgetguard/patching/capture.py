"""Reads the activations z of heads, and the logits, of a clean run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.heads import Head
from forgetguard.anatomy.locate import Anatomy
from forgetguard.patching.forward import forward
from forgetguard.patching.hooks import PreHook, first_tensor, hooked


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A clean run: z of the asked heads, [row, pos, head_dim], and the logits,
    [row, readout, vocab]."""

    z: dict[Head, Float[Tensor, "row pos head_dim"]]
    logits: Float[Tensor, "row readout vocab"]


def capture(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    heads: Iterable[Head],
) -> Captured:
    """Run the model on `ids` and keep z of `heads` (on the model's device) and the logits at
    `positions`.

    The same rows in the same batch give the same bits for the same weights: what is captured from a
    byte copy of a model equals what is captured from the model.
    """
    z: dict[Head, Tensor] = {}
    by_layer: dict[int, list[Head]] = {}
    for head in heads:
        by_layer.setdefault(head.layer, []).append(head)

    def reader(wanted: list[Head]) -> PreHook:
        def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = first_tensor(args, kwargs)
            for head in wanted:
                z[head] = hidden[..., anatomy.site(head.layer).slice(head)].clone()

        return read

    hooks = [
        (anatomy.site(layer).output_projection, reader(wanted))
        for layer, wanted in by_layer.items()
    ]
    with torch.no_grad(), hooked(before=hooks, after=[]):
        logits = forward(anatomy, ids, positions)
    return Captured(z, logits)
