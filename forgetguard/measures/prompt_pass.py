"""One pass of a model over its prompts, for all measures that read them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.locate import Anatomy
from forgetguard.patching.forward import forward
from forgetguard.patching.hooks import PostHook, first_output, hooked

T = TypeVar("T")
# Which prompts, by index, their ids, [row, pos], and where their logits are read.
PromptBatch: TypeAlias = tuple[Sequence[int], Int[Tensor, "row pos"], Sequence[int]]
Take: TypeAlias = Callable[
    [Sequence[int], Float[Tensor, "row readout vocab"], Sequence[Float[Tensor, "row d_model"]]],
    None,
]


@dataclass(slots=True, eq=False)
class Reader(Generic[T]):
    """What is taken of a model while its prompts run, batch by batch.

    Attributes:
        take: called with a batch's prompts, by index, their logits where they are read, and, for
            `layers`, the residual stream after each decoder layer at the first of these positions,
            float32 on the CPU. Every batch is on the model's device, and gone afterwards.
        result: what came of it; made once.
        left: the prompts that have yet to be run; at first all.
        failed: what `take` raised; it is not called again, and other readers are.
    """

    take: Take
    result: Callable[[], T]
    left: int
    layers: bool = False
    failed: Exception | None = None
    made: T | None = None

    def found(self) -> T:
        """What came of it, once all prompts have run (raises what `take` raised)."""
        if self.failed is not None:
            raise self.failed
        assert not self.left
        if self.made is None:
            self.made = self.result()
        return self.made


@contextmanager
def handing_to(
    readers: Sequence[Reader[Any]], anatomy: Anatomy, rows: Sequence[int], positions: Sequence[int]
) -> Iterator[None]:
    """Around one forward pass of the prompts `rows`, which every reader is then given."""
    streams: dict[int, Tensor] = {}
    logits: list[Tensor] = []

    def keeper(layer: int) -> PostHook:
        def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            # A copy: a view would hold every position of the layer.
            streams[layer] = first_output(output)[:, positions[0]].to(
                "cpu", torch.float32, copy=True
            )

        return keep

    def keep_logits(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        logits.append(output.logits)

    after: list[tuple[nn.Module, PostHook]] = []
    if any(one.layers for one in readers):
        after = [(layer, keeper(index)) for index, layer in enumerate(anatomy.layers)]
    if readers:
        after.append((anatomy.model, keep_logits))
    with hooked(before=[], after=after):
        yield
    by_layer = [streams[layer] for layer in sorted(streams)]
    for reader in readers:
        reader.left -= len(rows)
        if reader.failed is None:
            try:
                reader.take(rows, logits[-1], by_layer if reader.layers else ())
            except Exception as error:  # of one measure: the others go on
                reader.failed = error


def run(anatomy: Anatomy, batches: Iterable[PromptBatch], readers: Sequence[Reader[Any]]) -> None:
    """A pass over prompts for `readers` alone."""
    for rows, ids, positions in batches:
        with torch.no_grad(), handing_to(readers, anatomy, rows, positions):
            forward(anatomy, ids, positions)
