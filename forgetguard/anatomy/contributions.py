"""What each head adds to the residual stream, and the check that the heads add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy, AttentionSite
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.errors import AnatomyError

# Relative to the largest attention output of the layer. Measured on the sixteen models of
# tests/architectures.py: at most 3.8e-7 in float32, 6.2e-3 in bfloat16 (which rounds the output).
_SUM_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
_LOW_PRECISION_TOLERANCE = 2e-2


def output_slices(
    anatomy: Anatomy, members: Iterable[Member]
) -> dict[Member, Float[Tensor, "head_dim d_model"]]:
    """The effective output-projection slice W_O^h of each head among `members`, float32, on the
    model's device. MLP layers have none: what they hand on is their contribution already.

    Read by sending basis vectors through the projection, so that whatever the projection is made of
    (Linear, Conv1D, an enabled LoRA adapter, a quantised layer) counts as it acts. Its bias, which
    belongs to no head, is taken off.
    """
    slices: dict[Member, Tensor] = {}
    for head in members:
        if isinstance(head, Mlp):
            continue
        site = anatomy.site(head.layer)
        parameter = next(site.output_projection.parameters())
        dtype = parameter.dtype if parameter.dtype.is_floating_point else torch.float32
        probes = torch.zeros(
            1, site.head_dim + 1, site.n_heads * site.head_dim, dtype=dtype, device=parameter.device
        )
        rows = torch.arange(site.head_dim, device=parameter.device)
        probes[0, rows, rows + head.index * site.head_dim] = 1.0
        with torch.no_grad():
            answer = site.output_projection(probes)[0].float()
        slices[head] = answer[:-1] - answer[-1]
    return slices


def check_sum_of_heads(
    layer: int,
    site: AttentionSite,
    z: Float[Tensor, "batch pos heads_x_head_dim"],
    output: Float[Tensor, "batch pos d_model"],
    slices: Mapping[Member, Float[Tensor, "head_dim d_model"]],
) -> None:
    """The heads' contributions and the bias must sum to what the output projection returned.

    Raises:
        AnatomyError: they do not, so a contribution read from this model would be a wrong number.
    """
    total = torch.zeros(output.shape, dtype=torch.float32, device=output.device)
    for head, weight in slices.items():
        assert isinstance(head, Head)
        total += z[..., site.slice(head)].float() @ weight
    with torch.no_grad():
        bias = site.output_projection(torch.zeros_like(z[:1, :1])).float()
    difference = (total + bias - output.float()).abs().max().item()
    scale = max(output.float().abs().max().item(), 1e-30)
    tolerance = _SUM_TOLERANCE.get(output.dtype, _LOW_PRECISION_TOLERANCE)
    if not difference <= tolerance * scale:
        raise AnatomyError(
            f"layer {layer}: the heads' contributions do not sum to the attention output "
            f"(largest difference {difference:.3g} on a scale of {scale:.3g}); this architecture's "
            "heads cannot be measured by forgetguard"
        )
