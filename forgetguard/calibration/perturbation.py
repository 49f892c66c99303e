"""Random weight changes as large as fine-tuning's: Gaussian directions, matched norm by norm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.calibration.copies import Change
from forgetguard.gate.resampling import derive_seed
from forgetguard.measures.parameter_drift import WeightPair, norms


@dataclass(frozen=True, slots=True)
class Moved:
    """How far tuning moved one tensor: the Frobenius norm of tuned - base (in the weights' units)
    over `shape`, which has fewer rows than the tensor where vocabularies differ."""

    norm: float
    shape: tuple[int, ...]


def moved(pairs: Iterable[WeightPair]) -> dict[str, Moved]:
    """The tensors that tuning changed, by their names in the base; norms in float64.

    Raises:
        MeasurementError: a change is not finite.
        CheckpointError: a file cannot be read.
    """
    found = {pair.name: Moved(norms(pair)[0], pair.shape) for pair in pairs}
    return {name: one for name, one in found.items() if one.norm > 0}


def matched(direction: Float[Tensor, "*shape"], norm: float) -> Float[Tensor, "*shape"]:
    """`direction` at Frobenius norm `norm`, float64 (0 where the direction is 0)."""
    direction = direction.double()
    size = torch.linalg.vector_norm(direction)
    return direction * (norm / size) if size > 0 else direction


def perturbation(changes: Mapping[str, Moved], seed: int) -> dict[str, Change]:
    """One random direction: for every tensor that tuning moved, a Gaussian one of its norm.

    Each tensor has draws of its own, told by `seed` and its name. Stored in float32 at least, so
    that rounding does not eat a small change.
    """
    return {name: _gaussian(one, derive_seed(seed, name)) for name, one in changes.items()}


def _gaussian(moved: Moved, seed: int) -> Change:
    def change(tensor: Tensor) -> Tensor:
        drawn = torch.randn(moved.shape, generator=torch.Generator().manual_seed(seed))
        result = tensor.to(torch.float64, copy=True)
        rows = result[: moved.shape[0]] if moved.shape else result
        rows += matched(drawn, moved.norm)
        return result.to(stored_dtype(tensor))

    return change


def stored_dtype(tensor: Tensor) -> torch.dtype:
    """The number format in which a changed tensor is written: its own, but at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)
