"""Rotation of a weight matrix's leading singular subspaces, beside what a random change does.

After arXiv 2509.12235, which reads principal angles between the top 768 singular subspaces of q, k,
v and down projections and finds that directions turn while singular values hardly move.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.errors import MeasurementError
from forgetguard.measures.parameter_drift import WeightPair, weight_pairs
from forgetguard.measures.samples import FloatArray

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
    def mean_angle(self) -> float:
        """Over left and right angles, radians."""
        return float(np.mean([self.left, self.right]))


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
    check(base, tuned, k)
    return _rotation(_decomposed(base), base.double(), tuned.double(), k)


def over_control(
    base: CheckpointSpec, tuned: CheckpointSpec, options: LoadOptions | None = None
) -> dict[str, float]:
    """Mean angle of every matrix of `KINDS` over that of its control, a random change of the same
    Frobenius norm, by the matrix's name; 0 where nothing changed. k is `SHARE` of the smaller side.

    1: the leading subspaces turned as a random change of that size turns them; 0: they were left
    alone. The most it can read is not far above 1: of an m x n matrix with a flat leading spectrum
    about sqrt(m n / (k (m + n - 2k))) (first-order perturbation theory), which is 1.6 for a square
    one at a quarter of its rank, 2.4 at a tenth.

    Raises:
        CheckpointError: the checkpoints' weights do not match, or cannot be read.
        MeasurementError: a kind that no matrix is of, or what `rotation` raises.
    """
    found = {}
    for pair in matrices(weight_pairs(base, tuned, options), KINDS):
        before, change = read_matrix(pair)
        start = Start(before, max(1, round(SHARE * min(pair.shape))), pair.name)
        turned = start.turned(change)
        control = 0.0
        if turned.change:
            control = start.turned(random_change(change, generator(pair.name))).mean_angle
        found[pair.name] = turned.mean_angle / control if control else 0.0
    return found


class Start:
    """A matrix whose top-k subspaces changes turn: decomposed once for all of them. What `rotation`
    refuses is refused, under the matrix's `name`."""

    def __init__(self, base: Float[Tensor, "out in"], k: int, name: str) -> None:
        check(base, base, k, name)
        self._base, self._k, self._name = base, k, name
        self._decomposed = _decomposed(base)

    def turned(self, change: Float[Tensor, "out in"]) -> Rotation:
        """What adding `change` does."""
        check(self._base, change, self._k, self._name)
        return _rotation(self._decomposed, self._base, self._base + change, self._k)


def generator(name: str, seed: int = 0, draw: int = 0) -> np.random.Generator:
    """Of a matrix's random change: it depends on the seed, the draw and the matrix's name alone."""
    return np.random.default_rng([seed, draw, zlib.crc32(name.encode())])


def random_change(
    change: Float[Tensor, "out in"], rng: np.random.Generator
) -> Float[Tensor, "out in"]:
    """Independent normal entries, scaled to the Frobenius norm of `change`; float64, on its
    device."""
    drawn = torch.from_numpy(rng.standard_normal(tuple(change.shape))).to(change.device)
    scaled: Tensor = drawn * (torch.linalg.vector_norm(change) / torch.linalg.vector_norm(drawn))
    return scaled


def read_matrix(pair: WeightPair) -> tuple[Tensor, Tensor]:
    """The base's matrix and what tuning added to it, float64."""
    blocks = list(pair.blocks())
    base, change = (
        torch.cat([getattr(one, part).double() for one in blocks]) for part in ("base", "change")
    )
    return base, change


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


def check(base: Tensor, other: Tensor, k: int, name: str = "the matrix") -> None:
    """Raises MeasurementError where top-k subspaces of two matrices cannot be compared."""
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


def matrices(pairs: Collection[WeightPair], kinds: Collection[str]) -> list[WeightPair]:
    """The matrices of the asked kinds (raises MeasurementError where there is none of one)."""
    there = [pair for pair in pairs if len(pair.shape) == 2]
    for kind in kinds:
        if not any(kind in (pair.kind, pair.kind.split(".")[-1]) for pair in there):
            known = ", ".join(sorted({pair.kind for pair in there}))
            raise MeasurementError(f"no matrix is of kind {kind!r}; there are {known}")
    return [pair for pair in there if pair.kind in kinds or pair.kind.split(".")[-1] in kinds]


def _array(values: Tensor) -> FloatArray:
    found: FloatArray = values.cpu().numpy()
    return found
