"""Holds a circuit's heads where the base has them: the mean squared difference of their z.

z of a head is its slice of the input of the attention output projection. Reading it leaves it in
the model's graph, so the gradient of the term reaches every weight that z depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head
from forgetguard.patching.hooks import hooked, keep_input

# By layer, z of all its heads side by side.
Z = dict[int, Float[Tensor, "row pos heads_x_head_dim"]]


@contextmanager
def reading_z(anatomy: Anatomy, heads: Sequence[Head]) -> Iterator[Z]:
    """Inside, every forward pass of the model leaves z of the layers of `heads` in what is given.

    Raises:
        AnatomyError: a head is not in the model.
    """
    anatomy.check(heads)
    found: Z = {}
    layers = sorted({head.layer for head in heads})
    # Nothing is computed in them, so that a checkpointed layer saves the same tensors both times.
    hooks = [(anatomy.site(layer).output_projection, keep_input(found, layer)) for layer in layers]
    with hooked(before=hooks, after=[]):
        yield found


def circuit_difference(
    anatomy: Anatomy,
    heads: Sequence[Head],
    z: Mapping[int, Float[Tensor, "row pos heads_x_head_dim"]],
    base_z: Mapping[int, Float[Tensor, "row pos heads_x_head_dim"]],
    mask: Bool[Tensor, "row pos"],
) -> Float[Tensor, ""]:
    """The squared difference of z to the base's, averaged over head dimensions, the positions
    where `mask` is true (the tokens that are no padding), and `heads`; float32 or wider.

    It is 0 for a model that is the base, and so is its gradient there.
    """
    total = torch.zeros((), device=mask.device)
    tokens = mask.sum().clamp(min=1)
    for head in heads:
        site = anatomy.site(head.layer)
        mine, other = (one[head.layer][..., site.slice(head)] for one in (z, base_z))
        where = mask.to(mine.device)
        wide = torch.promote_types(mine.dtype, torch.float32)
        difference = mine[where].to(wide) - other.to(mine.device)[where].to(wide).detach()
        total = total + (difference.square().sum() / (tokens * site.head_dim)).to(total.device)
    return total / len(heads)
