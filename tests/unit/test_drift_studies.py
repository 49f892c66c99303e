"""What the studies of drift give back and compare: against what the words mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.studies.drift.given_back import given
from examples.studies.drift.similarity import shared_variance


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
