"""Whether a model has a capability is decided alike with and without a gate file."""

from __future__ import annotations

import numpy as np
import pytest

from forgetguard.capabilities.readouts import READOUTS
from forgetguard.gate import accuracy
from forgetguard.measures import ability
from forgetguard.measures.requirements import requirements, wilson


@pytest.mark.parametrize("share", [0.5, 0.62, 0.75, 1.0])
def test_the_bound_on_right_answers_is_the_gates(share: float) -> None:
    right = (np.arange(64) < round(share * 64)).astype(float)
    first = requirements(READOUTS["logit_diff"], right, -right, right)[0]
    assert (first.name, first.above) == ("right", 0.5)
    gates = accuracy.accuracy(right != 0)
    assert ability._low(first) == pytest.approx(gates.low, abs=1e-12)


def test_wilsons_interval_is_the_shares_that_the_sample_does_not_reject() -> None:
    low, high = wilson(0.75, 64, 1.645)
    for edge in (low, high):
        assert abs(0.75 - edge) / np.sqrt(edge * (1 - edge) / 64) == pytest.approx(1.645)
    assert wilson(1.0, 64, 1.645)[0] == pytest.approx(64 / (64 + 1.645**2))


def test_an_unsigned_readout_asks_for_an_effect_alone() -> None:
    values = np.array([1.0, 2.0])
    assert [one.name for one in requirements(READOUTS["logprob"], values, values, values)] == [
        "effect"
    ]
