"""`sharpness.*` from YAML: against the Hessian of a small logistic model, written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gated import gated
from test_measure_gradient_conflict import rows
from tiny_copies import copy_of_base

from forgetguard.errors import MeasurementError
from forgetguard.measures import curvature, loss_gradients
from forgetguard.measures.divergence import Passage, passage
from forgetguard.measures.samples import Key

LIMITS = "limits: {sharpness.max: {max: 9}, sharpness.trace: {max: 9}}"


class Logistic(torch.nn.Module):
    """Logits of 5 tokens: a matrix times features of the last id."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(5, 3, generator=draw, dtype=torch.float64))
        self.features = torch.randn(7, 3, generator=draw, dtype=torch.float64)


@pytest.fixture
def logistic(monkeypatch: pytest.MonkeyPatch) -> Logistic:
    model = Logistic()

    def forward(_: object, ids: torch.Tensor, positions: object) -> torch.Tensor:
        return (model.features[ids[:, -1]] @ model.weight.T)[:, None]

    monkeypatch.setattr(loss_gradients, "forward", forward)
    return model


class Anatomy:
    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model


PROMPTS = [passage([last], [answer]) for last, answer in ((0, 1), (1, 4), (2, 2), (3, 0), (5, 3))]


def hessian(model: Logistic, prompt: Passage) -> torch.Tensor:
    def loss(weight: torch.Tensor) -> torch.Tensor:
        logits = model.features[prompt.ids[-1]] @ weight.view(5, 3).T
        return torch.nn.functional.cross_entropy(logits, torch.tensor(prompt.targets[0]))

    found = torch.autograd.functional.hessian(loss, model.weight.detach().flatten())
    assert isinstance(found, torch.Tensor)
    return found


def test_the_largest_eigenvalue_is_that_of_the_written_out_hessian(logistic: Logistic) -> None:
    each = torch.stack([hessian(logistic, one) for one in PROMPTS])
    values, vectors = torch.linalg.eigh(each.mean(0))
    found = curvature.largest_curvature(Anatomy(logistic), PROMPTS)  # type: ignore[arg-type]
    assert found.mean() == pytest.approx(float(values[-1]), rel=curvature.TOLERANCE)
    expected = torch.einsum("i,nij,j->n", vectors[:, -1], each, vectors[:, -1])
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.1 * float(values[-1]))


def test_estimates_of_the_trace_are_unbiased_and_their_error_is_the_stated_one(
    logistic: Logistic,
) -> None:
    traces = [float(hessian(logistic, one).trace()) for one in PROMPTS]
    drawn = np.array(
        [
            curvature.trace_estimates(Anatomy(logistic), PROMPTS, seed=seed)  # type: ignore[arg-type]
            for seed in range(200)
        ]
    )
    error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - traces) < 4 * error).all()
    # Hutchinson: the variance is twice the squared entries off the diagonal.
    off = [hessian(logistic, one) for one in PROMPTS]
    exact = [float(2 * ((one**2).sum() - (one.diagonal() ** 2).sum())) for one in off]
    assert drawn.var(axis=0, ddof=1).tolist() == pytest.approx(exact, rel=0.4)


def test_weights_that_take_no_gradients_and_too_little_memory_are_told_in_one_line(
    logistic: Logistic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_gradients, "free_bytes", lambda _: 100)
    with pytest.raises(MeasurementError, match="do not fit"):
        curvature.trace_estimates(Anatomy(logistic), PROMPTS)  # type: ignore[arg-type]
    logistic.weight = torch.nn.Parameter(torch.zeros(5, 3, device="meta"))
    with pytest.raises(MeasurementError, match="not in memory"):
        curvature.trace_estimates(Anatomy(logistic), PROMPTS)  # type: ignore[arg-type]
    logistic.weight = torch.nn.Parameter(torch.zeros(5, 3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(MeasurementError, match="quantised"):
        curvature.trace_estimates(Anatomy(logistic), PROMPTS)  # type: ignore[arg-type]


def test_half_precision_is_read_in_float32_and_left_as_it_was(logistic: Logistic) -> None:
    logistic.features = logistic.features.float()
    logistic.weight.data = logistic.weight.data.bfloat16()
    kept = logistic.weight.data.clone()
    half = curvature.trace_estimates(Anatomy(logistic), PROMPTS)  # type: ignore[arg-type]
    assert logistic.weight.dtype is torch.bfloat16
    assert torch.equal(logistic.weight, kept)
    logistic.weight.data = logistic.weight.data.float()
    assert half.tolist() == curvature.trace_estimates(Anatomy(logistic), PROMPTS).tolist()  # type: ignore[arg-type]


def test_a_byte_copy_is_as_sharp_and_a_bent_loss_sharper(tmp_path: Path) -> None:
    gate = f"forgetguard: 2\nprompts: {rows('greater_than')}\n{LIMITS}\n"
    _, same = gated(gate, tuned=copy_of_base(tmp_path / "same"))
    assert all((same.need(key) == 0).all() for key in ("sharpness.max", "sharpness.trace"))

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"] *= 0.6

    _, bent = gated(gate, tuned=copy_of_base(tmp_path / "bent", damage))
    for key in ("sharpness.max", "sharpness.trace"):
        assert bent.arrays[Key(key, "", "base")].mean() > 0
        assert bent.need(key).mean() > 0
