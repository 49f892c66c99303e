"""Patching as a paper would write it: one ordinary forward pass for each run, nothing shared.

Written apart from the engine, on plain modules, so that agreement means something.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import transformers.pytorch_utils
from torch import Tensor

from forgetguard.anatomy.heads import Head
from forgetguard.anatomy.locate import Anatomy


def weight(projection: torch.nn.Module) -> Tensor:
    """The output projection's matrix, [inputs, outputs]."""
    matrix = projection.weight
    assert isinstance(matrix, Tensor)
    is_conv = isinstance(projection, transformers.pytorch_utils.Conv1D)
    return matrix if is_conv else matrix.T


def activations(anatomy: Anatomy, ids: Tensor) -> dict[Head, Tensor]:
    """z of every head, read by plain hooks."""
    seen: dict[Head, Tensor] = {}
    handles = []
    for layer, site in enumerate(anatomy.sites):

        def read(_: torch.nn.Module, args: tuple[Tensor, ...], layer: int = layer) -> None:
            width = anatomy.site(layer).head_dim
            for index, z in enumerate(args[0].split(width, dim=-1)):
                seen[Head(layer, index)] = z.clone()

        assert site is not None
        handles.append(site.output_projection.register_forward_pre_hook(read))
    with torch.no_grad():
        anatomy.model(input_ids=ids)
    for handle in handles:
        handle.remove()
    return seen


def logits(
    anatomy: Anatomy,
    ids: Tensor,
    z: Mapping[Head, Tensor],
    other: Anatomy | None = None,
) -> Tensor:
    """All logits of one forward pass with the contributions of the heads in `z` replaced.

    Within one model (`other` None) z is overwritten in the projection's input. From another model,
    the heads' z is zeroed there and the other model's contribution added to the output.
    """
    handles = []
    for layer in sorted({head.layer for head in z}):
        site = anatomy.site(layer)
        heads = [head for head in z if head.layer == layer]

        def overwrite(
            _: torch.nn.Module, args: tuple[Tensor, ...], heads: list[Head] = heads
        ) -> tuple[Tensor, ...]:
            changed = args[0].clone()
            for head in heads:
                part = anatomy.site(head.layer).slice(head)
                changed[..., part] = z[head] if other is None else 0.0
            return (changed, *args[1:])

        def add(
            _: torch.nn.Module,
            args: tuple[Tensor, ...],
            output: Tensor,
            heads: list[Head] = heads,
        ) -> Tensor:
            assert other is not None
            total = output
            for head in heads:
                foreign = other.site(head.layer)
                total = total + z[head] @ weight(foreign.output_projection)[foreign.slice(head)]
            return total

        handles.append(site.output_projection.register_forward_pre_hook(overwrite))
        if other is not None:
            handles.append(site.output_projection.register_forward_hook(add))
    with torch.no_grad():
        result = anatomy.model(input_ids=ids).logits
    for handle in handles:
        handle.remove()
    assert isinstance(result, Tensor)
    return result
