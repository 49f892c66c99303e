"""Checks that a model's heads can be patched correctly, run before any number is taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from forgetguard.anatomy.contributions import check_sum_of_heads, output_slices
from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head, Member, Mlp
from forgetguard.errors import AnatomyError, MeasurementError
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.forward import check_finite, forward
from forgetguard.patching.hooks import (
    PostHook,
    PreHook,
    first_output,
    first_tensor,
    hooked,
    with_first_tensor,
)
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

# Relative to the largest logit. The engine and a literal forward round differently: at most 9e-7 in
# float32 and 1.5e-2 in bfloat16, measured on the sixteen models of tests/architectures.py.
_ENGINE_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_LOW_PRECISION_TOLERANCE = 8e-2


def check_patching(
    anatomy: Anatomy,
    clean: Int[Tensor, "row pos"],
    counterfactual: Int[Tensor, "row pos"],
    positions: Sequence[int],
    members: Sequence[Member],
    *,
    start: int = 0,
) -> None:
    """Check on one batch of prompts that `members` can be patched correctly in this model.

    The same prompts give the same activations twice. Patching `members` by the wavefront equals
    replacing z in a literal forward pass, from the first differing position too.

    Raises:
        AnatomyError: the architecture's heads cannot be measured.
        MeasurementError: the model is not finite or not deterministic.
    """
    first, second = (capture(anatomy, clean, positions, members) for _ in range(2))
    check_finite(first.logits, "a clean prompt")
    if not all(torch.equal(first.z[one], second.z[one]) for one in members):
        raise MeasurementError(
            "the same prompts gave different activations twice: the model is not deterministic "
            "(dropout, or a kernel that is not), so equal models would not read 0"
        )
    _check_engine(anatomy, clean, counterfactual, positions, members, start)


def check_sums(anatomy: Anatomy, ids: Int[Tensor, "row pos"]) -> None:
    """In every layer that has heads, their contributions must sum to the attention output.

    Raises:
        AnatomyError: they do not, so no contribution of this model can be trusted.
    """
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(layer: int) -> PostHook:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen[layer] = first_tensor(args, kwargs), output

        return hook

    present = [(layer, site) for layer, site in enumerate(anatomy.sites) if site is not None]
    hooks = [(site.output_projection, keep(layer)) for layer, site in present]
    with torch.no_grad(), hooked(before=[], after=hooks):
        forward(anatomy, ids, [ids.shape[1] - 1])
    for layer, site in present:
        heads = [Head(layer, index) for index in range(site.n_heads)]
        check_sum_of_heads(layer, site, *seen.pop(layer), output_slices(anatomy, heads))


def _check_engine(
    anatomy: Anatomy,
    clean: Tensor,
    counterfactual: Tensor,
    positions: Sequence[int],
    members: Sequence[Member],
    start: int,
) -> None:
    z = capture(anatomy, counterfactual, positions, members).z
    dtype = next(anatomy.model.parameters()).dtype
    # One, and all of them together: a run that starts and a run that is patched on its way.
    sets = [(members[0],), tuple(members)]
    starts = sorted({0, start})
    runs = [Run(chosen, Source(z, start=at)) for chosen in sets for at in starts]
    with torch.no_grad():
        patched = wavefront(
            clean_pass(anatomy, clean, positions, members), runs, lambda logits, _: logits
        )
        for number, chosen in enumerate(sets):
            expected = _literal(anatomy, clean, positions, {one: z[one] for one in chosen})
            for offset in range(len(starts)):
                _compare(patched[number * len(starts) + offset], expected, dtype)


def _literal(
    anatomy: Anatomy, ids: Tensor, positions: Sequence[int], z: dict[Member, Tensor]
) -> Tensor:
    """An ordinary forward pass with z overwritten in the input of the output projections, and the
    output of the MLPs."""

    def overwrite(layer: int) -> PreHook:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            changed = first_tensor(args, kwargs).clone()
            for head, value in z.items():
                if isinstance(head, Head) and head.layer == layer:
                    changed[..., anatomy.site(layer).slice(head)] = value
            return with_first_tensor(args, kwargs, changed)

        return hook

    def replace(value: Tensor) -> PostHook:
        def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            returned = first_output(output)
            # A copy: Falcon adds the attention output to it in place.
            patched = value.to(returned.dtype).reshape(returned.shape).clone()
            return (patched, *output[1:]) if isinstance(output, tuple) else patched

        return hook

    layers = sorted({head.layer for head in z if isinstance(head, Head)})
    before = [(anatomy.site(layer).output_projection, overwrite(layer)) for layer in layers]
    after = [(anatomy.mlp(one.layer), replace(z[one])) for one in z if isinstance(one, Mlp)]
    with hooked(before=before, after=after):
        return forward(anatomy, ids, positions).float()


def _compare(patched: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    tolerance = _ENGINE_TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE)
    patched = patched.to(expected.device)
    difference = (patched - expected).abs().max().item()
    scale = max(expected.abs().max().item(), 1e-30)
    if not difference <= tolerance * scale:
        raise AnatomyError(
            f"patching by wavefront differs from a literal forward pass by {difference:.3g} on "
            f"logits of {scale:.3g}: this architecture passes something between its layers that "
            "the engine does not know; please report its name"
        )
