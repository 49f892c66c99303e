"""Patching as a paper would write it: one ordinary forward pass for each run, nothing shared.

Written apart from the engine, on plain modules, so that agreement means something.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import transformers.pytorch_utils
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head, Member, Mlp


def weight(projection: torch.nn.Module) -> Tensor:
    """The output projection's matrix, [inputs, outputs]."""
    matrix = projection.weight
    assert isinstance(matrix, Tensor)
    is_conv = isinstance(projection, transformers.pytorch_utils.Conv1D)
    return matrix if is_conv else matrix.T


def placed(anatomy: Anatomy, ids: Tensor) -> Tensor:
    """`ids` where the model is."""
    return ids.to(next(anatomy.model.parameters()).device)


def activations(anatomy: Anatomy, ids: Tensor) -> dict[Member, Tensor]:
    """z of every head and the output of every MLP, read by plain hooks."""
    seen: dict[Member, Tensor] = {}
    handles = []
    for layer, mlp in enumerate(anatomy.mlps):

        def keep(_: torch.nn.Module, args: object, output: Tensor, layer: int = layer) -> None:
            seen[Mlp(layer)] = output.reshape(len(ids), -1, output.shape[-1]).clone()

        assert mlp is not None
        handles.append(mlp.register_forward_hook(keep))
    for layer, site in enumerate(anatomy.sites):

        def read(_: torch.nn.Module, args: tuple[Tensor, ...], layer: int = layer) -> None:
            width = anatomy.site(layer).head_dim
            for index, z in enumerate(args[0].split(width, dim=-1)):
                seen[Head(layer, index)] = z.clone()

        assert site is not None
        handles.append(site.output_projection.register_forward_pre_hook(read))
    with torch.no_grad():
        anatomy.model(input_ids=placed(anatomy, ids))
    for handle in handles:
        handle.remove()
    return seen


def logits(
    anatomy: Anatomy,
    ids: Tensor,
    z: Mapping[Member, Tensor],
    other: Anatomy | None = None,
) -> Tensor:
    """All logits of one forward pass with the contributions of the heads in `z` replaced.

    Within one model (`other` None) z is overwritten in the projection's input. From another model,
    the heads' z is zeroed there and the other model's contribution added to the output. An MLP's
    output is overwritten either way.
    """
    handles = []
    for member, value in z.items():
        if isinstance(member, Mlp):

            def replace(_: torch.nn.Module, args: object, output: Tensor, value=value) -> Tensor:
                return value.reshape(output.shape).clone()  # Falcon adds to it in place

            handles.append(anatomy.mlp(member.layer).register_forward_hook(replace))
    for layer in sorted({head.layer for head in z if isinstance(head, Head)}):
        site = anatomy.site(layer)
        heads = [head for head in z if isinstance(head, Head) and head.layer == layer]

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
        result = anatomy.model(input_ids=placed(anatomy, ids)).logits
    for handle in handles:
        handle.remove()
    assert isinstance(result, Tensor)
    return result
