"""Which head of another model does the work of which head of the base.

A checkpoint whose heads were put into another order computes the same and shares no head of one
name with its base. Heads are matched by what they write: the other model's attention is run on the
base's own residual stream (measures/own_damage.py), and its heads' contributions are compared with
the base's, layer by layer. A head that writes what the base's head of its name does keeps its name;
the others are assigned so that as many as can be do the work of the one that they are matched with
(scipy's `linear_sum_assignment`). Where no head is found to have moved, none has.

A match forgives nothing: a matched head's damage is read from what it writes in its own model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy, AttentionSite
from forgetguard.anatomy.members import Head
from forgetguard.capabilities.batches import Batch
from forgetguard.measures.own_damage import Call, Detached, activations, attention_calls
from forgetguard.patching.forward import forward
from forgetguard.patching.hooks import hooked, keep_input

# A head does another's work where what it writes differs by less than this share of what that
# writes. All 270 heads of SmolLM2 measured: reordered heads differ by 0, folded norms by 1e-6 (0.03
# in bfloat16), weights stored in bfloat16 by 0.008; the nearest two different heads by 0.22.
SAME_WORK = 0.1
_ROWS = 2
_POSITIONS = 64
_DIRECTIONS = 16  # random ones of the residual stream, along which contributions are compared


def matched_heads(
    anatomy: Anatomy, batch: Batch, other: Mapping[int, Detached]
) -> dict[Head, Head]:
    """By head of the base, open in `anatomy`, the head of `other` that does its work: of the
    layers in which heads moved, those that did. Both run the first clean prompts of `batch`."""
    sites = {layer: anatomy.site(layer) for layer in other}
    z: dict[int, Tensor] = {}
    calls: dict[int, Call] = {}

    before = [(site.output_projection, keep_input(z, layer)) for layer, site in sites.items()]
    ids = batch.clean[:_ROWS]
    watched = attention_calls(anatomy, sorted(other), calls)
    with torch.no_grad(), hooked(before=before, after=[]), watched:
        forward(anatomy, ids, [ids.shape[1] - 1])
    found: dict[Head, Head] = {}
    for layer, site in sites.items():
        theirs = activations(other[layer], calls[layer])
        mine, their = _written(site, z[layer]), _written(other[layer].site, theirs.cpu())
        found |= {
            Head(layer, head): Head(layer, place) for head, place in _moved(mine, their).items()
        }
    return found


def _written(
    site: AttentionSite, z: Float[Tensor, "row pos heads_x_head_dim"]
) -> npt.NDArray[np.float64]:
    """What each head adds to the residual stream along a few fixed random directions, [head, n].

    A projection's derivative along a direction, which is had from whatever it is made of, stands
    for the projection; its bias falls out.
    """
    projection, device = site.output_projection, z.device
    with torch.enable_grad():
        probe = torch.zeros(_DIRECTIONS, z.shape[-1], dtype=z.dtype, device=device)
        output = projection(probe.requires_grad_())
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(output.shape, generator=generator).to(output)
        (slopes,) = torch.autograd.grad((output * directions).sum(), probe)
    flat = z.detach().flatten(0, 1).double()
    places = torch.linspace(0, len(flat) - 1, min(len(flat), _POSITIONS)).long()
    parts = flat[places.to(device)].unflatten(1, (site.n_heads, site.head_dim))
    weights = slopes.double().unflatten(1, (site.n_heads, site.head_dim))
    written = torch.einsum("phd,khd->hpk", parts, weights).flatten(1)
    found: npt.NDArray[np.float64] = written.cpu().numpy()
    return found


def _moved(
    mine: Float[npt.NDArray[np.float64], "head n"], theirs: Float[npt.NDArray[np.float64], "head n"]
) -> dict[int, int]:
    """By head of the base, that of the other model that does its work, of those that moved."""
    own, other = (one * one for one in (mine, theirs))
    apart = own.sum(1)[:, None] + other.sum(1)[None] - 2 * mine @ theirs.T
    # By subtraction the distance of equal heads is rounding; theirs is taken from the difference.
    np.fill_diagonal(apart, ((mine - theirs) ** 2).sum(1))
    near = apart <= SAME_WORK**2 * own.sum(1)[:, None]
    left = np.flatnonzero(~near.diagonal())
    among = np.ix_(left, left)
    if not near[among].any():
        return {}
    # First as many as can be of those that do each other's work; the rest by how near they come.
    cost = 1.0 - near[among] + _TIE * apart[among] / apart[among].max()
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return {int(left[row]): int(left[place]) for row, place in pairs if row != place}


_TIE = 1e-4  # so small that the distances of all heads of a layer weigh less than one match
