"""Rotation of a weight matrix's leading singular subspaces, beside what a random change does.

After arXiv 2509.12235, which reads principal angles between the top 768 singular subspaces of q, k,
v and down projections and finds that directions turn while singular values hardly move.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import MeasurementError
from forgetguard.measures.parameter_drift import WeightPair, weight_pairs

FloatArray = npt.NDArray[np.float64]
Control = Literal["gaussian", "spectrum"]

KINDS = ("q_proj", "k_proj", "v_proj", "down_proj")  # those of the paper
SHARE = 0.25  # of min(out, in); 2k is then at most half of either side, so no angle is forced to 0
MOST = 0.75  # beyond it angles are 0 mostly because there is no room to turn


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """How one matrix's top-k singular subspaces turned.

    Attributes:
        left: principal angles between the spans of the k leading left singular vectors (what the
            matrix writes), radians from 0 to pi/2, ascending, float64 [k].
        right: the same of the right ones (what it reads), float64 [k].
        base_values, tuned_values: all singular values, descending, float64 [min(out, in)].
        change: Frobenius norm of tuned - base.
    """

    left: FloatArray
    right: FloatArray
    base_values: FloatArray
    tuned_values: FloatArray
    change: float

    @property
    def gap(self) -> float:
        """(s_k - s_k+1) / s_k of the base, 0 to 1. The largest angle may reach about change / (s_k
        - s_k+1) (Wedin 1972): without a gap the cut at k is arbitrary, and turns at a touch."""
        k = len(self.left)
        here, next_one = self.base_values[k - 1], self.base_values[k]
        return float((here - next_one) / here) if here else 0.0

    @property
    def value_share(self) -> float | None:
        """Norm of the change of the singular values over that of the matrix, 0 to 1 (Mirsky 1960):
        0 when only directions turned, 1 when only values changed. None where nothing changed."""
        moved = float(np.linalg.norm(self.tuned_values - self.base_values))
        return moved / self.change if self.change else None


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
        return _mean_angle(self.tuned)

    @property
    def control_angle(self) -> float | None:
        """The same of the control, over its draws; None without one."""
        return float(np.mean([_mean_angle(one) for one in self.control])) if self.control else None

    @property
    def control_value_share(self) -> float | None:
        """`value_share` of the control, over its draws: a random change too moves mostly directions
        (about 0.1 on matrices of 100 columns). None without one."""
        shares = [one.value_share for one in self.control if one.value_share is not None]
        return float(np.mean(shares)) if shares else None

    @property
    def over_control(self) -> float | None:
        """mean_angle / control_angle; None without a control.

        1: the leading subspaces turned as a random change of that size turns them; 0: they were
        left alone. The most it can read is not far above 1: of an m x n matrix with a flat leading
        spectrum about sqrt(m n / (k (m + n - 2k))) (first-order perturbation theory), which is
        1.6 for a square one at a quarter of its rank, 2.4 at a tenth.
        """
        control = self.control_angle
        return self.mean_angle / control if control else None


def principal_angles(one: Float[Tensor, "n k"], other: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """Angles between the spans of two orthonormal sets of columns, radians, ascending.

    Small angles are taken from their sines, large ones from their cosines (Bjorck and Golub 1973):
    arccos near 1 cannot see angles below the square root of the precision, 1.5e-8 in float64 and
    3e-4 in float32.
    """
    overlap = one.mT @ other
    cosines = torch.linalg.svdvals(overlap).clamp(max=1.0)
    sines = torch.linalg.svdvals(other - one @ overlap).flip(0).clamp(max=1.0)
    return torch.where(sines < math.sqrt(0.5), sines.arcsin(), cosines.arccos())


def rotation(base: Float[Tensor, "out in"], tuned: Float[Tensor, "out in"], k: int) -> Rotation:
    """How the top-k singular subspaces turned from `base` to `tuned`; computed in float64, on the
    matrices' device. Equal matrices give angles of exactly 0.

    Raises:
        MeasurementError: k below 1 or beyond three quarters of the smaller side, matrices of
            different shapes, not finite, or whose decomposition does not converge.
    """
    _check(base, tuned, k)
    return _rotation(_decomposed(base), base.double(), tuned.double(), k)


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
    pairs = _chosen(weight_pairs(base, tuned, options).pairs, kinds)
    found = []
    for pair in pairs:
        size = k if k is not None else max(1, round(share * min(pair.shape)))
        found.append(_measured(pair, size, control, draws, seed, device))
    return tuple(found)


def _measured(
    pair: WeightPair, k: int, control: Control, draws: int, seed: int, device: str
) -> MatrixRotation:
    blocks = list(pair.blocks())
    base = torch.cat([block.base for block in blocks]).to(device)
    change = torch.cat([block.change for block in blocks]).to(device)
    _check(base, change, k, pair.name)
    decomposed = _decomposed(base)
    tuned = _rotation(decomposed, base, base + change, k)
    randomly = []
    for draw in range(draws if tuned.change else 0):
        rng = np.random.default_rng([seed, draw, zlib.crc32(pair.name.encode())])
        other = random_change(change, control, rng)
        randomly.append(_rotation(decomposed, base, base + other, k))
    rows, columns = base.shape
    return MatrixRotation(
        name=pair.name,
        kind=pair.kind,
        layer=pair.layer,
        shape=(rows, columns),
        tuned=tuned,
        control=tuple(randomly),
        forced_left=max(0, 2 * k - rows),
        forced_right=max(0, 2 * k - columns),
    )


def random_change(
    change: Float[Tensor, "out in"], control: Control, rng: np.random.Generator
) -> Float[Tensor, "out in"]:
    """A random matrix of the same Frobenius norm as `change`, float64 on its device; with control
    `spectrum`, of the same singular values.

    Raises:
        MeasurementError: an unknown control.
    """

    def normal(rows: int, columns: int) -> Tensor:
        drawn = torch.from_numpy(rng.standard_normal((rows, columns)))
        return drawn.to(change.device)

    rows, columns = change.shape
    if control == "gaussian":
        drawn = normal(rows, columns)
        scale = torch.linalg.vector_norm(change) / torch.linalg.vector_norm(drawn)
        scaled: Tensor = drawn * scale
        return scaled
    if control == "spectrum":
        values = torch.linalg.svdvals(change.double())
        left = torch.linalg.qr(normal(rows, len(values))).Q
        right = torch.linalg.qr(normal(columns, len(values))).Q
        # QR fixes the signs of its columns; uniformly random directions have random ones.
        signed = values * torch.from_numpy(rng.choice((-1.0, 1.0), len(values))).to(values.device)
        made: Tensor = (left * signed) @ right.mT
        return made
    raise MeasurementError(f"control={control!r} is not known: choose gaussian or spectrum")


def _rotation(
    decomposed: tuple[Tensor, Tensor, Tensor], base: Tensor, tuned: Tensor, k: int
) -> Rotation:
    left, values, right = decomposed
    if torch.equal(base, tuned):
        none = np.zeros(k)
        found = _array(values)
        return Rotation(none, none, found, found, 0.0)
    other_left, other_values, other_right = _decomposed(tuned)
    return Rotation(
        left=_array(principal_angles(left[:, :k], other_left[:, :k])),
        right=_array(principal_angles(right[:k].mT, other_right[:k].mT)),
        base_values=_array(values),
        tuned_values=_array(other_values),
        change=float(torch.linalg.vector_norm(tuned - base)),
    )


def _decomposed(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U [out, r], singular values [r] and V^T [r, in], float64."""
    rows, columns = matrix.shape
    if rows > columns:
        right, values, left = _decomposed(matrix.mT)
        return left.mT, values, right.mT
    try:
        if columns == rows:
            left, values, right = torch.linalg.svd(matrix.double())
            return left, values, right
        # A square one is left to decompose: 14 s for 2048 x 11008 on one core, against 79 s.
        basis, triangle = torch.linalg.qr(matrix.double().mT)
        left, values, right = torch.linalg.svd(triangle.mT)
    except RuntimeError as error:  # no convergence, or no room on the device
        raise MeasurementError(
            f"a singular value decomposition of {list(matrix.shape)} failed ({error}): "
            "try device cpu"
        ) from error
    return left, values, right @ basis.mT


def _check(base: Tensor, other: Tensor, k: int, name: str = "the matrix") -> None:
    if base.dim() != 2 or base.shape != other.shape:
        raise MeasurementError(
            f"{name}: singular subspaces are compared of two matrices of one shape, got "
            f"{list(base.shape)} and {list(other.shape)}"
        )
    rank = min(base.shape)
    if not 1 <= k <= MOST * rank:
        raise MeasurementError(
            f"{name}: k={k} of rank {rank}: at k near the full rank angles are 0 by construction "
            f"(two k-dimensional subspaces of n dimensions share 2k - n), and below 1 there are "
            f"none; choose k from 1 to {int(MOST * rank)}, or a share of at most {MOST}"
        )
    if not (torch.isfinite(base).all() and torch.isfinite(other).all()):
        raise MeasurementError(f"{name} holds NaN or infinite values: save the checkpoint again")


def _chosen(pairs: Collection[WeightPair], kinds: Collection[str]) -> list[WeightPair]:
    """The matrices of the asked kinds."""
    matrices = [pair for pair in pairs if len(pair.shape) == 2]
    for kind in kinds:
        if not any(kind in (pair.kind, pair.kind.split(".")[-1]) for pair in matrices):
            there = ", ".join(sorted({pair.kind for pair in matrices}))
            raise MeasurementError(f"no matrix is of kind {kind!r}; there are {there}")
    return [pair for pair in matrices if pair.kind in kinds or pair.kind.split(".")[-1] in kinds]


def _mean_angle(found: Rotation) -> float:
    return float(np.mean([found.left, found.right]))


def _array(values: Tensor) -> FloatArray:
    found: FloatArray = values.cpu().numpy()
    return found
