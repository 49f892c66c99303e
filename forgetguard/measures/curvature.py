"""How sharp the loss is around a model's weights: the largest eigenvalue of its Hessian and its
trace, prompt by prompt (the measures sharpness.*)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage
from forgetguard.measures.loss_gradients import Loss, Vector, differentiated, dot
from forgetguard.measures.samples import FloatArray

STEPS = 6  # Lanczos vectors that are held at once
CYCLES = 8  # of that many steps, at most
TOLERANCE = 0.02  # of the eigenvalue: how far off it may be


def largest_curvature(
    anatomy: Anatomy, prompts: Sequence[Passage], *, vocabulary: int | None = None
) -> FloatArray:
    """v^T H_i v of every prompt, float64 [prompt], with v the unit eigenvector of the largest
    eigenvalue of H, the Hessian of the mean loss, and H_i that of the prompt's own. Their mean is
    that eigenvalue within `TOLERANCE`; to first order an eigenvalue changes with the prompts'
    weights as these do, so their spread is its spread.

    Lanczos, restarted from its best vector: up to 48 products with H, each about four forward
    passes of all prompts; eight times the weights are held beside the model.

    Raises:
        MeasurementError: as `differentiated` and `Loss.curved`; or no convergence.
    """
    copies = STEPS + 4
    with differentiated(anatomy, prompts, copies=copies, vocabulary=vocabulary, twice=True) as loss:
        vector = _top(loss, prompts)
        return np.array([_along(loss, one, vector) for one in prompts])


def trace_estimates(
    anatomy: Anatomy, prompts: Sequence[Passage], *, vocabulary: int | None = None, seed: int = 0
) -> FloatArray:
    """z^T H_i z of every prompt, float64 [prompt], with signs z drawn anew for each (Hutchinson
    1989): each is unbiased for the trace of the prompt's Hessian, so their mean is for that of the
    mean loss, and their standard error covers prompts and signs alike. The signs depend on `seed`,
    the prompt's place and the number of weights: two checkpoints of one shape are given the same.

    One product a prompt; four times the weights are held beside the model.

    Raises:
        MeasurementError: as `differentiated` and `Loss.curved`.
    """
    with differentiated(anatomy, prompts, copies=4, vocabulary=vocabulary, twice=True) as loss:
        found = []
        for place, prompt in enumerate(prompts):
            drawn = np.random.default_rng((seed, place)).bytes(-(-loss.count // 8))
            bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=loss.count)
            signs = torch.from_numpy(bits).to(loss.device).float().mul_(2).sub_(1)
            found.append(_along(loss, prompt, signs))
        return np.array(found)


def _along(loss: Loss, prompt: Passage, vector: Vector) -> float:
    return dot(vector, loss.curved([prompt], vector))


def _top(loss: Loss, prompts: Sequence[Passage]) -> Vector:
    """The unit eigenvector of the largest eigenvalue."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(loss.count, generator=draw).to(loss.device)
    for _ in range(CYCLES):
        start, value, off = _cycle(loss, prompts, start / dot(start, start) ** 0.5)
        if value > 0 and off <= TOLERANCE * value:
            return start
    raise MeasurementError(
        f"the largest eigenvalue of the loss's Hessian was not found in {CYCLES * STEPS} steps: "
        f"{value:.3g}, off by up to {off:.2g}; give more prompts, or leave this limit out"
    )


def _cycle(loss: Loss, prompts: Sequence[Passage], start: Vector) -> tuple[Vector, float, float]:
    """The best vector of the space that `STEPS` products span, its eigenvalue, and how far off that
    may be (Parlett 1998: an eigenvalue lies within the residual's norm)."""
    basis, diagonal, beside = [start], list[float](), list[float]()
    while True:
        found = loss.curved(prompts, basis[-1])
        diagonal.append(dot(found, basis[-1]))
        for _ in range(2):  # once leaves what rounding puts in
            for one in basis:
                found.sub_(one, alpha=dot(found, one))
        rest = dot(found, found) ** 0.5
        values, vectors = eigh_tridiagonal(diagonal, beside)
        off = rest * abs(vectors[-1, -1])
        if len(basis) == STEPS or off <= TOLERANCE * values[-1] or rest == 0:
            best = sum(
                one * weight for one, weight in zip(basis, vectors[:, -1].tolist(), strict=True)
            )
            assert isinstance(best, Tensor)
            return best / dot(best, best) ** 0.5, float(values[-1]), float(off)
        beside.append(rest)
        basis.append(found / rest)
