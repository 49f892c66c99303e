"""Every measure can be asked for from Python, and reads what the gate reads."""

from __future__ import annotations

import pytest
from gated import PROMPTS, TEXTS, gated

import forgetguard as fg
from forgetguard.errors import MeasurementError, SpecificationError


def test_what_is_measured_from_python_is_what_is_gated() -> None:
    limits = "limits: {kl.forward: {max: 9}, drift.weights: {max: 0.9}, cka.layer: {max: 0.9}}\n"
    verdicts, _ = gated(f"forgetguard: 2\nname: a\n{PROMPTS}{limits}", tuned="tiny:sft")
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    kl = fg.measure(pair, "kl.forward", prompts=TEXTS)
    assert verdicts["kl.forward"].estimate is not None
    assert kl.value.value == verdicts["kl.forward"].estimate.value
    assert kl.samples.count == len(TEXTS)
    drift = fg.measure(pair, "drift.weights").value
    assert drift == verdicts["drift.weights"].estimate
    layers = fg.measure(pair, "cka.layer", prompts=TEXTS)
    assert set(layers.estimates) == {f"layer {at}" for at in range(4)}
    deciding = verdicts["cka.layer"].subject
    assert verdicts["cka.layer"].estimate is not None
    assert layers.estimates[deciding].value == verdicts["cka.layer"].estimate.value
    with pytest.raises(MeasurementError, match="layer 0"):
        _ = layers.value


def test_dcv_by_the_general_call_is_that_of_its_own() -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    induction, circuit = fg.capability("induction", pairs=16, seed=0), ["L1H5", "L2H2", "L3H1"]
    whole = fg.measure(pair, "dcv.circuit", capability=induction, circuit=circuit)
    heads = fg.measure(pair, "dcv.head", capability=induction, circuit=circuit)
    result = fg.vulnerability(pair, induction, circuit)
    assert whole.value == result.circuit
    assert heads.estimates == result.heads


@pytest.mark.parametrize(
    ("key", "needs"),
    [("dcv.circuit", "circuit"), ("accuracy.drop", "pairs"), ("kl.forward", "prompts")],
)
def test_what_is_not_given_is_asked_for(key: str, needs: str) -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    with pytest.raises(SpecificationError, match=needs):
        fg.measure(pair, key)
    with pytest.raises(SpecificationError, match=r"did you mean 'kl\.forward'"):
        fg.measure(pair, "kl.foward")
