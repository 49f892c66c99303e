"""The drift of weights at length: tensor by tensor, by kind and by layer, with the entries that
changed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from forgetguard.checkpoints.files import TensorEntry
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.measures.parameter_drift import Block, WeightPair, norms, weight_pairs


@dataclass(frozen=True, slots=True)
class Drift:
    """How far some weights moved, in the units of the weights.

    Attributes:
        change: Frobenius norm of tuned - base; over several tensors that of all their entries.
        size: Frobenius norm of the base.
        changed: entries that differ at all. Where the two are stored in different number formats,
            those that differ after rounding both to the coarser one. Of a LoRA adapter, entries
            where its update is not 0.
        entries: all of them.
        largest: largest absolute change of an entry.
    """

    change: float
    size: float
    changed: int
    entries: int
    largest: float

    @property
    def relative(self) -> float | None:
        """change / size, without unit; None where the base is all zero."""
        return self.change / self.size if self.size else None


@dataclass(frozen=True, slots=True)
class TensorDrift:
    """One tensor's drift: its name in the base, kind (`self_attn.q_proj`), layer (None outside the
    layers) and shape; `cut`: rows of a larger vocabulary left out (positive: the tuned model's)."""

    name: str
    kind: str
    layer: int | None
    shape: tuple[int, ...]
    cut: int
    drift: Drift


@dataclass(frozen=True, slots=True)
class ParameterDrift:
    """The drift of every tensor, by name."""

    tensors: tuple[TensorDrift, ...]

    @property
    def total(self) -> Drift:
        """Of all weights together. Tied embeddings count once."""
        return together(one.drift for one in self.tensors)

    @property
    def cut(self) -> dict[str, int]:
        """By name, the rows of a larger vocabulary that were left out."""
        return {one.name: one.cut for one in self.tensors if one.cut}


def parameter_drift(
    base: CheckpointSpec, tuned: CheckpointSpec, options: LoadOptions | None = None
) -> ParameterDrift:
    """Measure every weight's drift from the safetensors files, a block of rows at a time.

    Raises:
        CheckpointError: the checkpoints' weights do not match, or cannot be read.
        MeasurementError: a weight is NaN or infinite.
    """
    return ParameterDrift(tuple(map(_measured, weight_pairs(base, tuned, options))))


def _measured(pair: WeightPair) -> TensorDrift:
    change, size = norms(pair)
    entries, differing, largest = math.prod(pair.shape), 0, 0.0
    for block in pair.blocks() if entries else ():
        differing += changed(block)
        largest = max(largest, float(block.change.abs().max()))
    drift = Drift(change, size, differing, entries, largest)
    there = pair.tuned.shape if isinstance(pair.tuned, TensorEntry) else pair.base.shape
    cut = there[0] - pair.base.shape[0] if there else 0
    return TensorDrift(pair.name, pair.kind, layer_of(pair), pair.shape, cut, drift)


def layer_of(pair: WeightPair) -> int | None:
    """The first number in a weight's name; None outside the layers."""
    found = re.search(r"\.(\d+)\.", f".{pair.name}")
    return int(found[1]) if found else None


def changed(block: Block) -> int:
    """Entries that differ: of two tensors, in the coarser of their formats."""
    if block.tuned is None:
        return int(block.change.count_nonzero())
    both = block.base, block.tuned
    coarser = max((one.dtype for one in both), key=lambda dtype: torch.finfo(dtype).eps)
    base, tuned = (one.to(coarser).double() for one in both)
    return int((base != tuned).sum())


def together(drifts: Iterable[Drift]) -> Drift:
    """The drift of several tensors taken as one: norms add by their squares."""
    listed = list(drifts)
    return Drift(
        change=math.hypot(*(one.change for one in listed)),
        size=math.hypot(*(one.size for one in listed)),
        changed=sum(one.changed for one in listed),
        entries=sum(one.entries for one in listed),
        largest=max((one.largest for one in listed), default=0.0),
    )


def by_kind(found: ParameterDrift) -> dict[str, Drift]:
    """Over all layers, by kind of tensor, in the order of the kinds' names."""
    kinds = sorted({one.kind for one in found.tensors})
    return {k: together(one.drift for one in found.tensors if one.kind == k) for k in kinds}


def by_layer(found: ParameterDrift) -> dict[int, Drift]:
    """Over all tensors of a layer; those outside the layers are left out."""
    layers = sorted({one.layer for one in found.tensors if one.layer is not None})
    return {n: together(one.drift for one in found.tensors if one.layer == n) for n in layers}


def changed_share(drift: Drift) -> float:
    """changed / entries, 0 to 1."""
    return drift.changed / drift.entries if drift.entries else 0.0
