"""The clean run that a wavefront's patched runs start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.contributions import output_slices
from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.patching.capture import capture
from forgetguard.patching.hooks import (
    PostHook,
    PreHook,
    hooked,
    idle,
    keep_input,
    keep_output,
    on_input,
)


@dataclass(frozen=True, slots=True, eq=False)
class Below:
    """The layers before `layer`, of a clean run that need not compute them: what enters `layer`,
    and what they hand on beside it, as `CleanPass.idle_before` has it of another run."""

    layer: int
    residual: Float[Tensor, "row pos d_model"]
    idle: Mapping[nn.Module, tuple[Any, ...] | None]


@dataclass(frozen=True, slots=True, eq=False)
class CleanPass:
    """One clean run of a batch, with what patched runs of some members need from it.

    z: activations of its heads, [row, pos, head_dim], outputs of its MLPs, [row, pos, d_model].
    residual: the input of each decoder layer that has one of them, [row, pos, d_model].
    attention: the output of that layer's attention module, kept only where it is the output
        projection's output, so that a run may start from it without recomputing attention.
    own: the output-projection slices of the heads, [head_dim, d_model].
    read: from the last decoder layer's input to its attention's input (its norm, or nothing), where
        a clean run shows that this is all that happens between them, and positions meet nowhere
        else; otherwise None.
    beside: what a decoder layer returns after the hidden states, None where it returns these alone;
        of the layers that hand nothing else on.
    prefixes: keys and values of the positions before each start that was asked for
        (patching/prefix.py): several wavefronts from one clean run share them.
    """

    anatomy: Anatomy
    ids: Int[Tensor, "row pos"]
    positions: tuple[int, ...]
    logits: Float[Tensor, "row readout vocab"]
    z: dict[Member, Float[Tensor, "row pos width"]]
    residual: dict[int, Float[Tensor, "row pos d_model"]]
    attention: dict[int, Float[Tensor, "row pos d_model"]]
    own: dict[Member, Float[Tensor, "head_dim d_model"]]
    read: Callable[[Tensor], Tensor] | None
    beside: dict[int, tuple[Any, ...] | None]
    prefixes: dict[int, list[tuple[Tensor, Tensor]] | None] = field(default_factory=dict)

    def idle_before(self, layer: int) -> dict[nn.Module, tuple[Any, ...] | None]:
        """The layers before `layer` that a run which starts there need not compute, as
        `hooks.idle` takes them."""
        return {self.anatomy.layers[i]: rest for i, rest in self.beside.items() if i < layer}


def clean_pass(
    anatomy: Anatomy,
    ids: Int[Tensor, "row pos"],
    positions: Sequence[int],
    members: Sequence[Member],
    *,
    own: Mapping[Member, Float[Tensor, "head_dim d_model"]] | None = None,
    below: Below | None = None,
    past: Any = None,
) -> CleanPass:
    """Run the model on `ids` and keep what patched runs of any of `members` start from.

    Args:
        own: the heads' output-projection slices, where they have been read already.
        below: what lies before the first layer of `members`, where that is known.
        past: an empty cache, to be given keys and values.

    Raises:
        AnatomyError: one of `members` is not in the model.
    """
    anatomy.check(members)
    layers = sorted({member.layer for member in members})
    watch = _Watch(anatomy, [*layers, anatomy.n_layers - 1])
    with _entering(anatomy, below), watch.hooks():
        captured = capture(anatomy, ids, positions, members, past=past)
    return CleanPass(
        anatomy,
        ids,
        tuple(positions),
        captured.logits,
        captured.z,
        {layer: watch.entered[layer] for layer in layers},
        {layer: watch.attended[layer] for layer in layers if watch.returns_projection(layer)},
        output_slices(anatomy, members) if own is None else dict(own),
        watch.read_by_last(),
        watch.beside if anatomy.plain_layers else {},
    )


def _entering(anatomy: Anatomy, below: Below | None) -> AbstractContextManager[object]:
    """While inside, `below` takes the place of the layers that it stands for."""
    stack = ExitStack()
    if below is not None:
        known = below.residual
        enter = on_input(lambda given: known.to(given.device, given.dtype))
        stack.enter_context(idle(below.idle))
        stack.enter_context(hooked(before=[(anatomy.layers[below.layer], enter)], after=[]))
    return stack


class _Watch:
    """What passes through some decoder layers during one forward pass."""

    def __init__(self, anatomy: Anatomy, layers: Sequence[int]) -> None:
        self.anatomy = anatomy
        self.layers = list(dict.fromkeys(layers))
        self.entered: dict[int, Tensor] = {}  # the layer's input
        self.asked: dict[int, Tensor] = {}  # its attention's input
        self.attended: dict[int, Tensor] = {}  # its attention's output
        self.projected: dict[int, Tensor] = {}  # its output projection's output
        self.last = anatomy.n_layers - 1
        self.beside: dict[int, tuple[Any, ...] | None] = {}  # see CleanPass
        self.parts: list[tuple[nn.Module, Tensor]] = []  # what the last layer's parts returned

    def hooks(self) -> AbstractContextManager[None]:
        before: list[tuple[nn.Module, PreHook]] = []
        after: list[tuple[nn.Module, PostHook]] = []
        for i in self.layers:
            before.append((self.anatomy.layers[i], keep_input(self.entered, i)))
            site = self.anatomy.sites[i]
            if site is None:
                continue
            before.append((site.attention, keep_input(self.asked, i)))
            after.append((site.attention, keep_output(self.attended, i)))
            after.append((site.output_projection, keep_output(self.projected, i)))
        after += [(layer, self._keep_rest(i)) for i, layer in enumerate(self.anatomy.layers)]
        after += [(part, self._keep_part) for part in self.anatomy.layers[self.last].children()]
        return hooked(before=before, after=after)

    def _keep_rest(self, layer: int) -> PostHook:
        def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            rest = output[1:] if isinstance(output, tuple) else None
            if rest is None or all(one is None for one in rest):
                self.beside[layer] = rest

        return keep

    def _keep_part(self, part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.parts.append((part, output))

    def returns_projection(self, layer: int) -> bool:
        """Whether the attention returns its projection's output and nothing else (Bloom's adds the
        residual stream)."""
        if layer not in self.attended:
            return False
        attended, projected = self.attended[layer], self.projected[layer]
        return attended.shape == projected.shape and torch.equal(attended, projected)

    def read_by_last(self) -> Callable[[Tensor], Tensor] | None:
        """See `CleanPass.read`."""
        if not self.anatomy.plain_layers or not self.returns_projection(self.last):
            return None
        asked = self.asked[self.last]
        if asked is self.entered[self.last]:
            return lambda hidden: hidden
        return next((part for part, output in self.parts if output is asked), None)
