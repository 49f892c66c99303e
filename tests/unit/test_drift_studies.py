"""What the studies of drift give back and compare, and of what intervals miss: against what the
words mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.studies.calibration_error import ALIKE, absolute, answered, row
from examples.studies.drift.conflict import Gradients, drawn, gradients, halves, tables
from examples.studies.drift.given_back import given
from examples.studies.drift.scored import from_generator
from examples.studies.drift.similarity import shared_variance
from forgetguard.anatomy.locate import locate
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.measures.interference import cosines
from forgetguard.measures.lm_eval_calibration import contributions


def test_what_is_given_back_has_the_directions_or_the_values_of_the_base() -> None:
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(6, 9, generator=draw, dtype=torch.float64)
    tuned = base + 0.1 * torch.randn(6, 9, generator=draw, dtype=torch.float64)
    found = given(base, tuned)
    values = torch.linalg.svdvals
    assert torch.allclose(values(found["directions"]), values(tuned))
    assert torch.allclose(values(found["values"]), values(base))
    left, _, right = torch.linalg.svd(base, full_matrices=False)
    inner = left.T @ found["directions"] @ right.T
    assert torch.allclose(inner, torch.diag(inner.diagonal()), atol=1e-10)
    assert torch.equal(found["both"], base)
    straight, back = found["straight back, as far"], found["directions"]
    assert float((straight - tuned).norm()) == pytest.approx(float((back - tuned).norm()))
    way = (straight - tuned).flatten() @ (base - tuned).flatten()
    assert float(way) == pytest.approx(float((straight - tuned).norm() * (base - tuned).norm()))


def test_streams_share_all_none_or_half_of_their_variance() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 400, 4))
    nothing = np.zeros_like(one)
    first, second = np.hstack([one, nothing]), np.hstack([nothing, other])
    assert shared_variance(first, first) == pytest.approx(1)
    assert shared_variance(second, first) == pytest.approx(0, abs=1e-9)
    assert shared_variance(np.hstack([one, other]), first) == pytest.approx(0.5, abs=0.05)


def test_truth_and_misses_of_a_conflict_are_those_of_the_gradients_themselves() -> None:
    rng = np.random.default_rng(0)
    each, new = np.eye(5)[0] + rng.standard_normal((24, 5)), rng.standard_normal(5)
    found = Gradients((each @ each.T)[None], (each @ new)[None], np.array([new @ new]), ("",))
    mean = each.mean(axis=0)
    cosine = mean @ new / np.linalg.norm(mean) / np.linalg.norm(new)
    assert found.truth().tolist() == pytest.approx([-cosine])
    one = drawn(found, 16, 50, 0)
    assert one.effective.shape == (50, 1)
    assert one.effective.max() < 16
    assert one.passed.mean() + one.failed.mean() < 0.5
    assert "| all weights | 16 |" in tables(found, [16], 5)
    assert halves(found, 12, 200, 0) < -0.5


def test_the_gradients_of_a_model_are_those_of_its_conflict() -> None:
    with ModelPair([resolve("tiny:base", role) for role in ("base", "tuned")]) as pair:
        prior, new = (from_generator(one, pair.base, 8, 1).prompts for one in ("ioi", "key_value"))
        with pair.base.open() as model:
            found = gradients(locate(model), prior, new)  # more than are held at once
            gated = cosines(locate(model), prior, new)
    expected = [-one.values.mean() for one in gated.values()]
    assert found.able().truth().tolist() == pytest.approx(expected, abs=1e-5)


def test_contributions_to_either_calibration_error_are_those_of_the_definition() -> None:
    confidence, right = np.array([0.31, 0.33, 0.38, 0.92]), np.array([0.0, 1.0, 0.0, 1.0])
    bins = abs(1.02 - 1) / 4 + abs(0.92 - 1) / 4
    assert absolute(confidence, right).mean() == pytest.approx(bins)
    rng = np.random.default_rng(0)
    for kind, gap in (("calibrated", 0.0), ("over", 0.2), ("hot", 0.15)):
        base, tuned = answered(rng, kind, kind, 40_000)
        assert contributions(*base).mean() == pytest.approx(gap**2, abs=2e-3)
        assert (base[0] == tuned[0]).mean() == pytest.approx(ALIKE, abs=0.02)
    one = row("calibrated", "over", 48, 40, 100_000)
    assert one.absolute[0] > one.squared[0]
