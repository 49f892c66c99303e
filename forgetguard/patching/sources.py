"""What a patched run replaces, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.heads import Head


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Contributions of heads, taken from another run.

    z: each head's activation, [row, pos, head_dim]; a first axis of 1 serves every row (a mean).
    weights: the output-projection slice, [head_dim, d_model] float32, that turns each z into a
        contribution r = z W_O^h. None: the patched model's own slice, which is right where z comes
        from the same model (another prompt, a mean), and is the site `z` where it does not.
    start: z is known to equal the clean run's at every position before this one, so the positions
        before it need no recomputation.
    """

    z: Mapping[Head, Float[Tensor, "row pos head_dim"]]
    weights: Mapping[Head, Float[Tensor, "head_dim d_model"]] | None = None
    start: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One patched run over the rows of a batch: all of `heads` replaced together from `source`.

    strength: how much of the replacement each head gets, [head]: r + strength * (r_source - r).
        None is 1 for all. May require grad (differentiable masking).
    """

    heads: tuple[Head, ...]
    source: Source
    strength: Float[Tensor, "head"] | None = None

    @property
    def first_layer(self) -> int:
        return min(head.layer for head in self.heads)

    def at(self, layer: int) -> tuple[tuple[int, Head], ...]:
        """The run's heads in `layer`, each with its place in `heads`."""
        return tuple((i, head) for i, head in enumerate(self.heads) if head.layer == layer)


def contribution_change(
    z: Float[Tensor, "row pos head_dim"],
    source_z: Float[Tensor, "row pos head_dim"],
    own: Float[Tensor, "head_dim d_model"],
    foreign: Float[Tensor, "head_dim d_model"] | None,
) -> Float[Tensor, "row pos d_model"]:
    """r_source - r of one head, float32.

    Computed as a difference and in float32 whatever the model's dtype, so that equal heads give
    exactly zero and small differences are not lost in rounding.
    """
    if foreign is None:
        return (source_z.float() - z.float()) @ own
    return source_z.float() @ foreign - z.float() @ own


def unchanged_rows(
    z: Float[Tensor, "row pos head_dim"],
    source_z: Float[Tensor, "row pos head_dim"],
    own: Float[Tensor, "head_dim d_model"],
    foreign: Float[Tensor, "head_dim d_model"] | None,
) -> Tensor:
    """For each row, whether patching this head there changes nothing at all, bool [row].

    Such a run IS the clean run. Reading it off the clean run, rather than recomputing it in another
    batch shape, is what makes base against base read exactly 0.
    """
    if foreign is not None and not torch.equal(own, foreign):
        return torch.zeros(len(z), dtype=torch.bool)
    return (z == source_z).flatten(1).all(dim=1).cpu()
