"""`drift.weights` from YAML: against the norms of plain state dicts, and a change of known size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from gated import gated
from plain_tiny import plain_model
from safetensors.torch import load_file
from tiny_copies import copy_of_base

from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.baseline import Baseline, Entry, identity
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Key, Samples

GATE = "forgetguard: 2\nlimits: {drift.weights: {max: LIMIT}}\n"
NAME = "a.gate.yaml"
PAIR = {"base": "base", "tuned": "sft"}


def norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(math.fsum(float(one.detach().double().square().sum()) for one in tensors))


def plain_drift(name: str) -> float:
    tuned = dict(plain_model(name).named_parameters())
    changes = [tuned[key] - one for key, one in plain_model("base").named_parameters()]
    return norm(changes) / norm(plain_model("base").parameters())


def plain_adapter_drift() -> float:
    """|scale B A| over all adapted weights, from the adapter's files alone."""
    folder = Path(resolve("tiny:lora", "tuned").location)
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    parts = [key for key in tensors if key.endswith("lora_A.weight")]
    assert len(parts) * 2 == len(tensors)
    changes = [scale * tensors[a.replace("lora_A", "lora_B")] @ tensors[a] for a in parts]
    return norm(changes) / norm(plain_model("base").parameters())


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


def test_over_a_baseline_it_is_what_moved_since() -> None:
    spec = parse_gate(GATE.replace("weights", "weights.over_baseline").replace("LIMIT", "0"), NAME)
    specs = {role: resolve(f"tiny:{name}", role) for role, name in PAIR.items()}
    then = Samples((), {}, {Key("drift.weights", "", "tuned"): 0.001})
    with ModelPair(specs) as pair:
        same = identity(spec, "", asdict(pair.base.fingerprint))
        baseline = Baseline(Path("b"), {spec.name: Entry(same, {}, {}, then)})
        found = GateSession(pair, [spec], baseline=baseline).judge(spec, spec.limits[0])
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(plain_drift("sft") - 0.001, rel=1e-6)


def test_limits_that_stand_for_one_of_the_run_share_its_place() -> None:
    spec = parse_gate(GATE.replace("LIMIT", "0.5"), NAME)
    specs = {role: resolve(f"tiny:{name}", role) for role, name in PAIR.items()}
    with ModelPair(specs) as pair:
        session = GateSession(pair, [spec], family=3)
        assert session.judge(spec, spec.limits[0], own=4).family == 12
