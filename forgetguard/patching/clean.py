"""The clean run that a wavefront's patched runs start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.contributions import output_slices
from forgetguard.anatomy.heads import Head
from forgetguard.anatomy.locate import Anatomy
from forgetguard.patching.capture import capture
from forgetguard.patching.hooks import PostHook, PreHook, first_tensor, hooked


@dataclass(frozen=True, slots=True, eq=False)
class CleanPass:
    """One clean run of a batch, with what patched runs of `heads` need from it.

    z: activations of `heads`, [row, pos, head_dim].
    residual: the input of each decoder layer that has one of `heads`, [row, pos, d_model].
    attention: the output of that layer's attention module, kept only where it is the output
        projection's output, so that a run may start from it without recomputing attention.
    own: the output-projection slices of `heads`, [head_dim, d_model].
    """

    anatomy: Anatomy
    ids: Int[Tensor, "row pos"]
    positions: tuple[int, ...]
    logits: Float[Tensor, "row readout vocab"]
    z: dict[Head, Float[Tensor, "row pos head_dim"]]
    residual: dict[int, Float[Tensor, "row pos d_model"]]
    attention: dict[int, Float[Tensor, "row pos d_model"]]
    own: dict[Head, Float[Tensor, "head_dim d_model"]]


def clean_pass(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    heads: Sequence[Head],
) -> CleanPass:
    """Run the model on `ids` and keep what patched runs of any of `heads` start from.

    Raises:
        AnatomyError: one of `heads` is not in the model.
    """
    anatomy.check(heads)
    residual: dict[int, Tensor] = {}
    attention: dict[int, Tensor] = {}
    projected: dict[int, Tensor] = {}

    def keep_input(layer: int) -> PreHook:
        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            residual[layer] = first_tensor(args, kwargs)

        return keep

    def keep_output(layer: int, store: dict[int, Tensor]) -> PostHook:
        def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            store[layer] = output[0] if isinstance(output, tuple) else output

        return keep

    layers = sorted({head.layer for head in heads})
    before = [(anatomy.layers[layer], keep_input(layer)) for layer in layers]
    after = [(anatomy.site(i).output_projection, keep_output(i, projected)) for i in layers]
    after += [(anatomy.site(i).attention, keep_output(i, attention)) for i in layers]
    with hooked(before=before, after=after):
        captured = capture(anatomy, ids, positions, heads)
    startable = {
        layer: output
        for layer, output in attention.items()
        if output.shape == projected[layer].shape and torch.equal(output, projected[layer])
    }
    return CleanPass(
        anatomy,
        ids,
        tuple(positions),
        captured.logits,
        captured.z,
        residual,
        startable,
        output_slices(anatomy, heads),
    )
