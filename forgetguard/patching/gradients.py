"""How a readout changes, to first order, with the activations of heads and MLPs: one forward and
one backward pass of an ordinary model, for all of them at once.

The graph starts at the output of the token embedding, so parameters need no gradients. Activations
are held layer by layer, all heads of a layer side by side as the model has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member, Mlp
from forgetguard.errors import AnatomyError
from forgetguard.patching.budget import CPU_TOKENS, halving
from forgetguard.patching.capture import by_row
from forgetguard.patching.forward import check_finite, forward, frozen, full_float32, input_device
from forgetguard.patching.hooks import PostHook, PreHook, hooked, keep_input, on_output

# From float32 logits [row, readout, vocab] (float64 where the model is) to one readout a row.
Read = Callable[[Float[Tensor, "row readout vocab"]], Float[Tensor, "row"]]

_CPU_BYTES = 4 * 2**30  # that the graph of one chunk may take where free memory is not asked


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """What members did in one run, or the gradient there, or a difference of two runs.

    heads: by layer, z of all its heads side by side, [row, pos, heads * head_dim].
    mlps: by layer, what the MLP adds to the residual stream, [row, pos, d_model].
    """

    heads: dict[int, Float[Tensor, "row pos heads_x_head_dim"]]
    mlps: dict[int, Float[Tensor, "row pos d_model"]]

    def tensors(self) -> list[Tensor]:
        return [*self.heads.values(), *self.mlps.values()]

    def like(self, tensors: Sequence[Tensor]) -> Activations:
        """Other tensors, in the order of `tensors()`, at the same places."""
        heads = dict(zip(self.heads, tensors, strict=False))
        return Activations(heads, dict(zip(self.mlps, tensors[len(heads) :], strict=True)))

    def detached(self) -> Activations:
        """The same, free of the graph that they belong to."""
        return self.like([tensor.detach() for tensor in self.tensors()])

    def minus(self, other: Activations) -> Activations:
        """The difference, place by place."""
        return Activations(
            {layer: mine - other.heads[layer] for layer, mine in self.heads.items()},
            {layer: mine - other.mlps[layer] for layer, mine in self.mlps.items()},
        )


def activations(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    members: Sequence[Member],
) -> Activations:
    """Run the model on `ids` without a graph and keep what the layers of `members` do.

    Raises:
        MeasurementError: logits are not finite.
    """
    taps = Activations({}, {})
    with torch.no_grad(), frozen(anatomy.model), tapped(anatomy, members, taps, len(ids)):
        check_finite(forward(anatomy, ids, positions), "a prompt")
    return taps


def gradients(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    members: Sequence[Member],
    read: Read,
    *,
    embedded: Float[Tensor, "row pos width"] | None = None,
    past: Any = None,
) -> tuple[Activations, Activations]:
    """What the layers of `members` do on `ids`, and dF/da there, F being `read` of the logits.

    Args:
        embedded: takes the place of the token embedding's output.
        past: a cache of the positions before `ids` (see `forward`), which are held constant.

    Returns:
        The activations, without graph, and the gradients, both in the model's dtype. A row's
        readout depends on its own activations alone, so each row's gradient is that of its own F.

    Raises:
        AnatomyError: the model does not use its token embedding.
        MeasurementError: logits are not finite.
    """
    taps = Activations({}, {})
    with differentiable(anatomy, embedded), tapped(anatomy, members, taps, len(ids)):
        logits = forward(anatomy, ids, positions, past=past)
    found = gradient_of(logits, read, taps.tensors())
    return taps.detached(), taps.like(found)


def gradient_of(
    logits: Float[Tensor, "row readout vocab"], read: Read, at: Sequence[Tensor]
) -> list[Tensor]:
    """The gradient of the sum of `read`'s readouts with respect to each tensor of `at`.

    Raises:
        AnatomyError: the logits do not depend on the token embedding.
        MeasurementError: logits are not finite.
    """
    check_finite(logits.detach(), "a prompt")
    if not logits.requires_grad:
        raise AnatomyError(
            "the logits do not depend on the output of the token embedding, so no gradient can be "
            "taken; use method: activation_patching, which needs none"
        )
    with torch.enable_grad(), full_float32():
        total = read(logits.to(torch.promote_types(logits.dtype, torch.float32))).sum()
        return list(torch.autograd.grad(total, list(at)))


def attributed(
    anatomy: Anatomy, members: Sequence[Member], gradient: Activations, change: Activations
) -> Float[Tensor, "member row"]:
    """Each member's gradient dotted with its change, summed over positions and width: what the
    change would do to F were F linear. Nats, float64, on the CPU."""
    heads = {}
    for layer, at in gradient.heads.items():
        site = anatomy.site(layer)
        products = _products(at, change.heads[layer]).unflatten(-1, (site.n_heads, site.head_dim))
        heads[layer] = products.sum(dim=(1, 3)).double().cpu()
    mlps = {
        layer: _products(at, change.mlps[layer]).sum(dim=(1, 2)).double().cpu()
        for layer, at in gradient.mlps.items()
    }
    return torch.stack(
        [
            mlps[one.layer] if isinstance(one, Mlp) else heads[one.layer][:, one.index]
            for one in members
        ]
    )


def _products(gradient: Tensor, change: Tensor) -> Tensor:
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    return gradient.to(dtype) * change.to(gradient.device, dtype)


def embeddings(anatomy: Anatomy, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos width"]:
    """The output of the token embedding; learned positions are not in it."""
    with torch.no_grad(), frozen(anatomy.model):
        found = anatomy.model.get_input_embeddings()(ids.to(input_device(anatomy)))  # type: ignore[operator]
    assert isinstance(found, Tensor)
    return found


@contextmanager
def differentiable(
    anatomy: Anatomy, embedded: Float[Tensor, "row pos width"] | None = None
) -> Iterator[None]:
    """While inside, a forward pass keeps a graph that starts at the token embedding's output."""

    def start(output: Tensor) -> Tensor:
        value = output if embedded is None else embedded.to(output.device, output.dtype)
        # A clone: models may change their embeddings in place, which a leaf does not allow.
        return value.detach().requires_grad_().clone()

    embedding = anatomy.model.get_input_embeddings()  # type: ignore[operator]
    with (
        frozen(anatomy.model),
        full_float32(),
        torch.enable_grad(),
        hooked(before=[], after=[(embedding, on_output(start))]),
    ):
        yield


@contextmanager
def tapped(
    anatomy: Anatomy, members: Sequence[Member], taps: Activations, rows: int
) -> Iterator[None]:
    """While inside, forward passes leave in `taps` what the layers of `members` do.

    Raises:
        AnatomyError: a member is not in the model.
    """
    anatomy.check(members)
    before: list[tuple[nn.Module, PreHook]] = []
    after: list[tuple[nn.Module, PostHook]] = []
    for layer in sorted({one.layer for one in members if not isinstance(one, Mlp)}):
        before.append((anatomy.site(layer).output_projection, keep_input(taps.heads, layer)))
    for layer in sorted({one.layer for one in members if isinstance(one, Mlp)}):
        after.append((anatomy.mlp(layer), _tap_mlp(taps, layer, rows)))
    with hooked(before=before, after=after):
        yield


def _tap_mlp(taps: Activations, layer: int, rows: int) -> PostHook:
    def tap(returned: Tensor) -> Tensor:
        taps.mlps[layer] = by_row(returned, rows)
        # What goes on hangs on the tap, and is a copy: Falcon adds to it in place.
        return taps.mlps[layer].reshape(returned.shape).clone()

    return on_output(tap)


def in_chunks(
    rows: int, most: int, work: Callable[[slice], Float[Tensor, "entry row"]]
) -> Float[Tensor, "entry row"]:
    """`work` on consecutive rows, at most `most` at a time and half as many whenever memory runs
    out, put together again. Rows must not depend on each other.

    Raises:
        MeasurementError: memory does not suffice for one row.
    """
    parts: list[Tensor] = []
    size, first = max(1, min(rows, most)), 0
    while first < rows:
        begin = first

        def one(size: int, begin: int = begin) -> Tensor:
            return work(slice(begin, min(begin + size, rows)))

        parts.append(halving(one, min(size, rows - first)))
        size = parts[-1].shape[-1]  # what fitted once is what the rest is cut into
        first += size
    return torch.cat(parts, dim=-1)


def rows_at_once(anatomy: Anatomy, n_positions: int) -> int:
    """Rows whose graph, as a rough guess, fits into memory: half of what is free on a GPU."""
    parameter = next(anatomy.model.parameters())
    config = anatomy.model.config.get_text_config()  # type: ignore[operator, union-attr]
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    # Each layer keeps its projections' inputs and, in eager attention, scores and weights.
    per_layer = 12 * width + 3 * inner + 2 * config.num_attention_heads * n_positions
    per_row = anatomy.n_layers * per_layer * parameter.element_size() * n_positions
    if parameter.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(parameter.device)
        return max(1, int(free // 2 // per_row))
    return int(max(1, min(CPU_TOKENS // n_positions, _CPU_BYTES // per_row)))
