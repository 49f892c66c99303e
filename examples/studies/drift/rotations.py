"""Rotation of singular subspaces at length: with its gap, its values and several controls."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import MeasurementError
from forgetguard.measures.parameter_drift import WeightPair, weight_pairs
from forgetguard.measures.singular_rotation import (
    KINDS,
    SHARE,
    Rotation,
    Start,
    generator,
    matrices,
    random_change,
    read_matrix,
)

Control = Literal["gaussian", "spectrum"]


def gap(found: Rotation) -> float:
    """(s_k - s_k+1) / s_k of the base, 0 to 1. The largest angle may reach about change / (s_k -
    s_k+1) (Wedin 1972): without a gap the cut at k is arbitrary, and turns at a touch."""
    k = len(found.left)
    here, next_one = found.base_values[k - 1], found.base_values[k]
    return float((here - next_one) / here) if here else 0.0


def value_share(found: Rotation) -> float | None:
    """Norm of the change of the singular values over that of the matrix, 0 to 1 (Mirsky 1960): 0
    when only directions turned, 1 when only values changed. None where nothing changed."""
    moved = float(np.linalg.norm(found.tuned_values - found.base_values))
    return moved / found.change if found.change else None


@dataclass(frozen=True, slots=True, eq=False)
class MatrixRotation:
    """One matrix of a checkpoint beside random changes of the same Frobenius norm.

    Attributes:
        name, kind, layer, shape: as in `WeightPair`.
        tuned: what fine-tuning did.
        control: what each of some random changes of that size does to the same matrix; empty where
            nothing changed.
        forced_left, forced_right: how many of the k angles are 0 whatever the matrices are, since
            two k-dimensional subspaces of n dimensions share 2k - n.
    """

    name: str
    kind: str
    layer: int | None
    shape: tuple[int, int]
    tuned: Rotation
    control: tuple[Rotation, ...]
    forced_left: int
    forced_right: int

    @property
    def k(self) -> int:
        return len(self.tuned.left)

    @property
    def mean_angle(self) -> float:
        """Over left and right angles, radians."""
        return self.tuned.mean_angle

    @property
    def control_angle(self) -> float | None:
        """The same of the control, over its draws; None without one."""
        return float(np.mean([one.mean_angle for one in self.control])) if self.control else None

    @property
    def control_value_share(self) -> float | None:
        """`value_share` of the control, over its draws: a random change too moves mostly directions
        (about 0.1 on matrices of 100 columns). None without one."""
        shares = [share for one in self.control if (share := value_share(one)) is not None]
        return float(np.mean(shares)) if shares else None

    @property
    def over_control(self) -> float | None:
        """mean_angle / control_angle, as in `singular_rotation`; None without a control."""
        control = self.control_angle
        return self.mean_angle / control if control else None


def checkpoint_rotation(
    base: CheckpointSpec,
    tuned: CheckpointSpec,
    *,
    kinds: Collection[str] = KINDS,
    share: float = SHARE,
    k: int | None = None,
    control: Control = "gaussian",
    draws: int = 1,
    seed: int = 0,
    device: str = "cpu",
    options: LoadOptions | None = None,
) -> tuple[MatrixRotation, ...]:
    """Measure every matrix of some kinds, one at a time, from the checkpoints' files.

    Args:
        kinds: last parts of kinds (`q_proj`), or whole ones (`self_attn.q_proj`).
        share: k as a share of min(out, in), at least 1.
        k: the same k for every matrix instead; those of the paper's models are 768.
        control: `gaussian`: independent normal entries, scaled to the change's Frobenius norm.
            `spectrum`: the change's own singular values in random directions; the fairer one for a
            change of low rank, which turns a few directions far.
        draws: random changes a matrix; 0 for none.
        seed: of the control; a matrix's draws depend on it and on its name alone.
        device: where decompositions run.

    Raises:
        CheckpointError: the checkpoints' weights do not match, or cannot be read.
        MeasurementError: a kind that no matrix is of, or what `rotation` raises.
    """
    found = []
    for pair in matrices(weight_pairs(base, tuned, options).pairs, kinds):
        size = k if k is not None else max(1, round(share * min(pair.shape)))
        found.append(_measured(pair, size, control, draws, seed, device))
    return tuple(found)


def _measured(
    pair: WeightPair, k: int, control: Control, draws: int, seed: int, device: str
) -> MatrixRotation:
    base, change = (one.to(device) for one in read_matrix(pair))
    start = Start(base, k, pair.name)
    tuned = start.turned(change)
    rngs = [generator(pair.name, seed, draw) for draw in range(draws if tuned.change else 0)]
    rows, columns = base.shape
    return MatrixRotation(
        name=pair.name,
        kind=pair.kind,
        layer=pair.layer,
        shape=(rows, columns),
        tuned=tuned,
        control=tuple(start.turned(controlled(change, control, rng)) for rng in rngs),
        forced_left=max(0, 2 * k - rows),
        forced_right=max(0, 2 * k - columns),
    )


def controlled(
    change: Float[Tensor, "out in"], control: Control, rng: np.random.Generator
) -> Float[Tensor, "out in"]:
    """A random matrix of the same Frobenius norm as `change`, float64 on its device; with control
    `spectrum`, of the same singular values.

    Raises:
        MeasurementError: an unknown control.
    """
    if control == "gaussian":
        return random_change(change, rng)
    if control != "spectrum":
        raise MeasurementError(f"control={control!r} is not known: choose gaussian or spectrum")
    values = torch.linalg.svdvals(change.double())
    left, right = (
        torch.linalg.qr(torch.from_numpy(rng.standard_normal((size, len(values))))).Q
        for size in change.shape
    )
    # QR fixes the signs of its columns; uniformly random directions have random ones.
    signed = values * torch.from_numpy(rng.choice((-1.0, 1.0), len(values))).to(values.device)
    made: Tensor = (left.to(change.device) * signed) @ right.to(change.device).mT
    return made
