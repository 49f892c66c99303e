"""One model in memory whose weights are exchanged for another checkpoint's, read from disk."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.checkpoints.adapted import WRAPPED
from forgetguard.checkpoints.files import ADAPTER, OUTPUT_EMBEDDINGS
from forgetguard.errors import CheckpointError, MeasurementError
from forgetguard.measures.parameter_drift import Block, LowRank, WeightPair

_BLOCK = 1 << 20  # entries read at once


class Side(Enum):
    """Whose entries stand in a tensor; `RANDOM`: the base's, each moved as far as tuning moved it,
    up or down by a coin."""

    BASE, TUNED, RANDOM = "base", "tuned", "random"


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Which entries of a tensor: some rows (in order), or some columns, or (both None) all."""

    rows: Int[Tensor, "row"] | None = None
    columns: slice | None = None


Slices = Mapping[str, Entries]  # by the tensor's name in the base
Sums = tuple[Float[Tensor, "row"], Float[Tensor, "column"]]


class Exchange:
    """The base's model, some of its entries for now the tuned checkpoint's. Made by `exchange`.

    Attributes:
        parameters: of the weights that tuning changed, by their names in the base.
    """

    def __init__(self, pairs: Mapping[str, WeightPair], found: Mapping[str, nn.Parameter]) -> None:
        self._pairs, self.parameters = pairs, found
        self._dirty: dict[str, None] = {}

    def put(self, slices: Slices, side: Side, seed: int = 0) -> None:
        """Let these entries be those of `side`; `seed` is that of the coin."""
        for name, entries in slices.items():
            self._dirty[name] = None
            signs = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            with torch.no_grad():
                for start, block in self._blocks(name):
                    _write(self.parameters[name], entries, start, _side(block, side, signs))

    def restore(self) -> None:
        """Every entry the base's again, bit for bit as it was loaded."""
        self.put(dict.fromkeys(self._dirty, Entries()), Side.BASE)
        self._dirty.clear()

    def sums(self, name: str) -> Sums:
        """By row and by column (one, of what is no matrix), the first-order change of what was
        differentiated: its gradient times tuned - base, float64. Takes the gradient."""
        parameter = self.parameters[name]
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        found = []
        for start, block in self._blocks(name):
            here = _rows(gradient)[start : start + len(block.base)].double().cpu() * block.change
            here = here.reshape(len(here), -1)
            found.append((here.sum(1), here.sum(0)))
        return torch.cat([rows for rows, _ in found]), torch.stack([one for _, one in found]).sum(0)

    def _blocks(self, name: str) -> Iterator[tuple[int, Block]]:
        start = 0
        for block in self._pairs[name].blocks(_BLOCK):
            yield start, block
            start += len(block.base)


@contextmanager
def exchange(model: nn.Module, pairs: Sequence[WeightPair]) -> Iterator[Exchange]:
    """The open base, ready to take the tuned checkpoint's weights. After the block, whatever ends
    it, it is what it was: the base's files are seen to hold the loaded weights bit for bit first,
    and are read again. Of a tied output embedding that only one of the two has of its own, the
    model holds a copy meanwhile.

    Raises:
        CheckpointError: a weight of the files is not in the model as it is stored (quantised,
            renamed or fused when loaded, offloaded), or a file changed.
        MeasurementError: a weight is NaN or infinite.
    """
    with _untied(model, pairs):
        names = plain_names(model)
        found: dict[str, nn.Parameter] = {}
        changed: dict[str, WeightPair] = {}
        for pair in pairs:
            parameter = _parameter(pair.name, names)
            largest = None if parameter is None else _largest_change(parameter, pair)
            if parameter is None or largest is None:
                raise CheckpointError(
                    f"{pair.name} of {pair.base.file} is not in the loaded base as it is stored "
                    "(quantised, offloaded, or fused when loaded): the origin of a loss needs "
                    "plain weights; load it unquantised, on one device"
                )
            if not largest < float("inf"):  # NaN too
                raise MeasurementError(
                    f"{pair.name} holds NaN or infinite values in one of the two checkpoints: save "
                    "it again from a run that did not diverge"
                )
            if largest > 0:
                changed[pair.name], found[pair.name] = pair, parameter
        exchanged = Exchange(changed, found)
        try:
            yield exchanged
        finally:
            exchanged.restore()


def plain_names(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by its name in the plain model, without what peft wraps modules by."""
    return {
        ".".join(part for part in name.split(".") if part not in WRAPPED): parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def _parameter(name: str, names: Mapping[str, nn.Parameter]) -> nn.Parameter | None:
    if name in names:
        return names[name]
    near = [one for one in names if one.endswith(f".{name}") or name.endswith(f".{one}")]
    return names[near[0]] if len(near) == 1 else None


def _largest_change(parameter: nn.Parameter, pair: WeightPair) -> float | None:
    """How far an entry moved at most; None where the model does not hold what the base's file says,
    in the model's number format."""
    rows = _rows(parameter)
    fits = parameter.shape[1:] == pair.shape[1:] and len(rows) >= (pair.shape or (1,))[0]
    if parameter.is_meta or not fits or not parameter.is_floating_point():
        return None
    start, largest = 0, [0.0]
    for block in pair.blocks(_BLOCK):
        here = rows[start : start + len(block.base)]
        if not torch.equal(here, block.base.to(here)) and block.base.isfinite().all():
            return None
        largest.append(float(block.change.abs().max()))
        start += len(block.base)
    return float(torch.tensor(largest).max())  # NaN stays


def _rows(tensor: Tensor) -> Tensor:
    """A view with rows: of a single number, one."""
    return tensor.detach() if tensor.dim() else tensor.detach().reshape(1)


def _side(block: Block, side: Side, signs: torch.Generator) -> Tensor:
    if side is Side.BASE:
        return block.base
    if side is Side.TUNED and block.tuned is not None:
        return block.tuned
    change = block.change
    if side is Side.RANDOM:
        change = change * (2 * torch.randint(2, change.shape, generator=signs) - 1)
    return block.base.double() + change


def _write(parameter: nn.Parameter, entries: Entries, start: int, values: Tensor) -> None:
    here, values = _rows(parameter)[start : start + len(values)], values.to(parameter)
    if entries.rows is not None:
        mine = entries.rows[(entries.rows >= start) & (entries.rows < start + len(values))] - start
        here[mine.to(here.device)] = values[mine.to(here.device)]
    elif entries.columns is not None:
        here[:, entries.columns] = values[:, entries.columns]
    else:
        here.copy_(values)


def _by_adapter(pair: WeightPair) -> bool:
    tuned = pair.tuned
    return isinstance(tuned, LowRank) or (tuned is not None and tuned.file.name in ADAPTER)


@contextmanager
def _untied(model: Any, pairs: Sequence[WeightPair]) -> Iterator[None]:
    """Inside, two tied embeddings are apart where tuning changed them apart: one of the checkpoints
    has both, or an adapter is on one of them."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    ends = [getattr(end, "base_layer", end) for end in (first, last)]
    apart = any(
        pair.name.endswith(OUTPUT_EMBEDDINGS)
        or (_by_adapter(pair) and pair.shape == tuple(ends[0].weight.shape))
        for pair in pairs
    )
    tied: nn.Parameter = ends[1].weight
    if not apart or ends[0].weight is not tied:
        yield
        return
    ends[1].weight = nn.Parameter(tied.detach().clone(), requires_grad=False)
    try:
        yield
    finally:
        ends[1].weight = tied
