"""Checks that a model's heads can be patched correctly, run before any number is taken from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from forgetguard.anatomy.contributions import check_sum_of_heads, output_slices
from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head, Member
from forgetguard.errors import AnatomyError, ForgetguardError, MeasurementError, first_line
from forgetguard.patching.attention_inputs import AttentionCall, watched_attention
from forgetguard.patching.budget import is_out_of_memory
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.forward import check_finite, forward
from forgetguard.patching.hooks import PostHook, hooked
from forgetguard.patching.mixing import cache_sources, mixed
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

# Relative to the largest logit. The engine and a literal forward round differently: at most 9e-7 in
# float32 and 1.5e-2 in bfloat16, measured on the sixteen models of tests/architectures.py.
_ENGINE_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_LOW_PRECISION_TOLERANCE = 8e-2
_SAID = 200  # characters of another library's message


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
        AnatomyError: the architecture's heads cannot be measured, or its code raised.
        MeasurementError: the model is not finite or not deterministic.
    """
    with _translated(anatomy, "patching its heads"):
        _check_repeatable(anatomy, clean, positions, members)
        _check_engine(anatomy, clean, counterfactual, positions, members, start)


def _check_repeatable(
    anatomy: Anatomy, clean: Tensor, positions: Sequence[int], members: Sequence[Member]
) -> None:
    first, second = (capture(anatomy, clean, positions, members) for _ in range(2))
    check_finite(first.logits, "a clean prompt")
    if not all(torch.equal(first.z[one], second.z[one]) for one in members):
        raise MeasurementError(
            "the same prompts gave different activations twice: the model is not deterministic "
            "(dropout, or a kernel that is not), so equal models would not read 0"
        )


def check_sums(anatomy: Anatomy, ids: Int[Tensor, "row pos"]) -> None:
    """In every layer that has heads, their contributions must sum to what the output projection
    returns; and where no other library named the modules, that must be what the attention hands on,
    computed by as many heads as were found.

    Raises:
        AnatomyError: they do not, or the model cannot be run, so no contribution of this model can
            be trusted.
    """
    present = [(layer, site) for layer, site in enumerate(anatomy.sites) if site is not None]
    projected = {layer: _Kept() for layer, _ in present}
    attended = {layer: _Kept() for layer, _ in present}
    hooks: list[tuple[nn.Module, PostHook]] = []
    hooks += [(site.output_projection, projected[layer].hook) for layer, site in present]
    hooks += [(site.attention, attended[layer].hook) for layer, site in present]
    with _translated(anatomy, "its heads' sums"):
        with torch.no_grad(), hooked(before=[], after=hooks), _watched(anatomy) as calls:
            forward(anatomy, ids, [ids.shape[1] - 1])
        for layer, _ in present:
            kept = projected.pop(layer)
            _check_sum(anatomy, layer, kept)
            if anatomy.plain_layers:
                _check_found(anatomy, layer, kept.output, attended.pop(layer), calls.get(layer))


class _Kept:
    """The tensors that a module was last given, and what it returned for them."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []
        self.output = torch.empty(0)

    def hook(self, _: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        self.given = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        self.output = output[0] if isinstance(output, (tuple, list)) else output


def _check_sum(anatomy: Anatomy, layer: int, projected: _Kept) -> None:
    if not projected.given:
        raise AnatomyError(
            f"layer {layer}: {type(anatomy.model).__name__} never calls its output projection as a "
            "module (its attention is fused), so its heads cannot be read; forgetguard cannot "
            "measure it"
        )
    site = anatomy.site(layer)
    slices = output_slices(anatomy, [Head(layer, index) for index in range(site.n_heads)])
    check_sum_of_heads(layer, site, projected.given[0], projected.output, slices)


def _check_found(
    anatomy: Anatomy, layer: int, projected: Tensor, attended: _Kept, call: AttentionCall | None
) -> None:
    """The output projection is the last thing that the attention does, but for adding what it was
    given (Bloom's adds the residual stream), and its input has one part for each head."""
    added = [one for one in attended.given if one.shape == projected.shape]
    sums = [projected, *(projected + one for one in added)]
    if not any(torch.equal(attended.output, one) for one in sums):
        raise AnatomyError(
            f"layer {layer}: what the attention of {type(anatomy.model).__name__} returns is not "
            "what the module taken for its output projection returns; please report its name"
        )
    heads = anatomy.site(layer).n_heads
    if call is not None and call.output.shape[2] != heads:
        raise AnatomyError(
            f"layer {layer}: {type(anatomy.model).__name__} attends with {call.output.shape[2]} "
            f"heads, where its modules and its configuration say {heads}; please report its name"
        )


@contextmanager
def _watched(anatomy: Anatomy) -> Iterator[dict[int, AttentionCall]]:
    """The attention calls of a forward pass inside, none where they cannot be seen."""
    with ExitStack() as stack:
        calls: dict[int, AttentionCall] = {}
        with suppress(AnatomyError):
            calls = stack.enter_context(watched_attention(anatomy))
        yield calls


@contextmanager
def _translated(anatomy: Anatomy, what: str) -> Iterator[None]:
    """Turn an exception of the model's own code inside into one line with its architecture. Running
    out of memory is left to those who know what to do."""
    try:
        yield
    except ForgetguardError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise AnatomyError(
            f"{type(anatomy.model).__name__} cannot be measured: the self-check of {what} ended in "
            f"{type(error).__name__}: {first_line(error)[:_SAID]}. Its code does something that "
            "forgetguard cannot follow; please report the architecture"
        ) from error


def _check_engine(
    anatomy: Anatomy,
    clean: Tensor,
    counterfactual: Tensor,
    positions: Sequence[int],
    members: Sequence[Member],
    start: int,
) -> None:
    """Hold the wavefront against ordinary forward passes under hooks that replace all of what the
    members do."""
    sources = cache_sources(anatomy, counterfactual, members)
    z = {one: sources.of(anatomy, one) for one in members}
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
            with mixed(anatomy, chosen, torch.ones(len(chosen)), sources):
                expected = forward(anatomy, clean, positions).float()
            for offset in range(len(starts)):
                _compare(patched[number * len(starts) + offset], expected, dtype)


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
