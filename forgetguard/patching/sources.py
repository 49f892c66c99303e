"""What a patched run replaces, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.members import Member


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Contributions of heads and MLP layers, taken from another run.

    z: each head's activation, [row, pos, head_dim], and each MLP's output, [row, pos, d_model]; a
        first axis of 1 serves every row (a mean).
    weights: the output-projection slice, [head_dim, d_model] float32, that turns each head's z into
        a contribution r = z W_O^h. None: the patched model's own slice, which is right where z
        comes from the same model (another prompt, a mean), and is the site `z` where it does not.
    start: z is known to equal the clean run's at every position before this one, so the positions
        before it need no recomputation.
    """

    z: Mapping[Member, Float[Tensor, "row pos width"]]
    weights: Mapping[Member, Float[Tensor, "head_dim d_model"]] | None = None
    start: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One patched run over the rows of a batch: `members` replaced together from `source`.

    begun: a later layer to begin at, and what enters it from the source's start on: of a run from
        the same source that replaces the same members in all layers before.
    """

    members: tuple[Member, ...]
    source: Source
    begun: tuple[int, Float[Tensor, "row pos d_model"]] | None = None
    first_layer: int = field(init=False)
    _by_layer: Mapping[int, tuple[Member, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Asked for in every layer of every wave, and a run may hold nearly all of a model's heads.
        by_layer: dict[int, tuple[Member, ...]] = {}
        for one in self.members:
            by_layer[one.layer] = (*by_layer.get(one.layer, ()), one)
        first = min(by_layer) if self.begun is None else self.begun[0]
        object.__setattr__(self, "_by_layer", by_layer)
        object.__setattr__(self, "first_layer", first)

    def at(self, layer: int) -> tuple[Member, ...]:
        """The run's members in `layer`, none before its first."""
        return () if layer < self.first_layer else self._by_layer.get(layer, ())


def contribution_change(
    z: Float[Tensor, "row pos width"],
    source_z: Float[Tensor, "row pos width"],
    own: Float[Tensor, "head_dim d_model"] | None,
    foreign: Float[Tensor, "head_dim d_model"] | None,
) -> Float[Tensor, "row pos d_model"]:
    """r_source - r of one member, float32. An MLP has no slice of its own (`own` is None): z is its
    contribution.

    Computed as a difference and in float32 whatever the model's dtype, so that equal members give
    exactly zero and small differences are not lost in rounding.
    """
    if own is None:
        return source_z.float() - z.float()
    if foreign is None:
        return (source_z.float() - z.float()) @ own
    return source_z.float() @ foreign - z.float() @ own


def unchanged_rows(
    z: Float[Tensor, "row pos width"],
    source_z: Float[Tensor, "row pos width"],
    own: Float[Tensor, "head_dim d_model"] | None,
    foreign: Float[Tensor, "head_dim d_model"] | None,
) -> Tensor:
    """For each row, whether patching this member there changes nothing at all, bool [row].

    Such a run IS the clean run. Reading it off the clean run, rather than recomputing it in another
    batch shape, is what makes base against base read exactly 0.
    """
    if own is not None and foreign is not None and not torch.equal(own, foreign):
        return torch.zeros(len(z), dtype=torch.bool)
    return (z == source_z).flatten(1).all(dim=1).cpu()
