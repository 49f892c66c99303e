"""`drift.weights` from YAML: against the norms of plain state dicts, and a change of known size."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from gated import gated
from plain_tiny import plain_model
from tiny_copies import copy_of_base

from forgetguard.gate.verdict import Code, Outcome

GATE = "forgetguard: 2\nlimits: {drift.weights: {max: LIMIT}}\n"


def plain_drift(name: str) -> float:
    base, tuned = (dict(plain_model(one).named_parameters()) for one in ("base", name))
    change = math.fsum(float((tuned[key] - base[key]).double().square().sum()) for key in base)
    return math.sqrt(
        change / math.fsum(float(one.double().square().sum()) for one in base.values())
    )


def test_it_is_the_norm_of_the_change_over_the_norm_of_the_base_exactly() -> None:
    verdicts, samples = gated(GATE.replace("LIMIT", "0.01"), tuned="tiny:sft")
    verdict = verdicts["drift.weights"]
    assert verdict.estimate is not None
    assert verdict.estimate.value == pytest.approx(plain_drift("sft"), rel=1e-6)
    assert verdict.estimate.interval == (verdict.estimate.value, verdict.estimate.value)
    assert verdict.estimate.n == 0
    assert (verdict.outcome, verdict.code) == (Outcome.FAIL, Code.BEYOND)
    assert not samples.units


def test_weights_scaled_by_a_hundredth_drift_by_a_hundredth(tmp_path: Path) -> None:
    def scale(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] *= 1.01

    scaled = copy_of_base(tmp_path / "scaled", scale)
    for limit, outcome in (("0.0101", Outcome.PASS), ("0.0099", Outcome.FAIL)):
        verdicts, _ = gated(GATE.replace("LIMIT", limit), tuned=scaled)
        assert verdicts["drift.weights"].outcome is outcome
    same, _ = gated(GATE.replace("LIMIT", "0"), tuned=copy_of_base(tmp_path / "same"))
    assert same["drift.weights"].outcome is Outcome.PASS


def test_an_adapter_drifts_by_its_delta() -> None:
    verdicts, _ = gated(GATE.replace("LIMIT", "0.5"), tuned="tiny:lora", reference="tiny:sft")
    estimate = verdicts["drift.weights"].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(plain_adapter_drift(), rel=1e-6)
    over = GATE.replace("weights", "weights.over_reference").replace("LIMIT", "0")
    verdicts, _ = gated(over, tuned="tiny:lora", reference="tiny:sft")
    apart = verdicts["drift.weights.over_reference"].estimate
    assert apart is not None
    assert apart.value == pytest.approx(estimate.value - plain_drift("sft"), rel=1e-6)
