"""A verdict's truth value: only a pass lets a release through."""

from __future__ import annotations

import pytest

from forgetguard.gate.verdict import Code, Estimate, Outcome, Verdict


@pytest.mark.parametrize("estimate", [None, Estimate(0.0, -0.1, 0.1, coverage=0.9, n=64)])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_it_is_true_only_where_it_is_a_pass(outcome: Outcome, estimate: Estimate | None) -> None:
    verdict = Verdict("ioi", "ioi", "dcv.circuit", 0.1, outcome, estimate, Code.WITHIN)
    assert bool(verdict) is (outcome.value == "pass")
