"""`heads.disrupted` from YAML: counted by hand from the patched runs, and of heads that were
silenced in one third of the layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_copies import copy_of_base, output_slice_zeroed

from forgetguard.anatomy.members import Head, parse_member
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.heads_disrupted import MEASURE
from forgetguard.measures.samples import BASE, DAMAGE, IMPORTANCE, TUNED, Samples

CIRCUITS = Path(__file__).parents[2] / "circuits"


def judged(tuned: str | Path) -> tuple[Verdict, Samples]:
    path = CIRCUITS / "tiny-induction.circuit.yaml"
    text = path.read_text().split("limits:")[0] + "limits: {heads.disrupted: {max: 0.2}}\n"
    spec = parse_gate(text, path)
    with ModelPair([resolve("tiny:base", "base"), resolve(str(tuned), "tuned")]) as pair:
        session = GateSession(pair, [spec])
        return session.judge(spec, spec.limits[0]), session.measurement(spec)


def test_the_share_is_what_counting_by_hand_gives() -> None:
    verdict, samples = judged("tiny:sft")
    told = {one.subject: one.value.value for one in verdict.subjects if one.value is not None}
    assert told == pytest.approx(
        {one: MEASURE.select(samples, one).values.mean() for one in MEASURE.subjects_in(samples)}
    )  # judged on what the results file keeps, heads of the circuit that are not judged alone too
    circuit = samples.need(IMPORTANCE, "circuit", BASE).mean()
    heads = [str(Head(layer, index)) for layer in range(4) for index in range(6)]
    shares: dict[str, list[np.ndarray]] = {}
    for name in heads:
        importance = samples.need(IMPORTANCE, name, BASE).mean()
        layer = parse_member(name).layer
        band = "layer 0" if layer < 1 else "layers 1 to 2" if layer < 3 else "layer 3"
        if abs(importance) >= 0.01 * abs(circuit):
            vulnerable = samples.need(DAMAGE, name, TUNED) / importance
            shares.setdefault(band, []).append(
                np.where(vulnerable >= 0.25, 1, np.where(vulnerable <= -0.25, -1, 0))
            )
    found = {one: MEASURE.select(samples, one).values for one in MEASURE.subjects_in(samples)}
    assert found.keys() == shares.keys()
    for band, each in shares.items():
        assert found[band].tolist() == pytest.approx(np.mean(each, axis=0).tolist())


def test_a_copy_reads_0_and_silenced_heads_are_found_in_their_third(tmp_path: Path) -> None:
    verdict, samples = judged(copy_of_base(tmp_path / "same"))
    assert verdict.outcome is Outcome.PASS
    assert not any(
        MEASURE.select(samples, one).values.any() for one in MEASURE.subjects_in(samples)
    )

    def share(count: int) -> tuple[Verdict, dict[str, float]]:
        def damage(tensors: dict[str, torch.Tensor]) -> None:
            for layer in (1, 2):
                for index in range(count):
                    output_slice_zeroed(Head(layer, index))(tensors)

        found, samples = judged(copy_of_base(tmp_path / str(count), damage))
        return found, {
            one: float(MEASURE.select(samples, one).values.mean())
            for one in MEASURE.subjects_in(samples)
        }

    (_, few), (verdict, many) = share(2), share(6)
    assert 0 < few["layers 1 to 2"] < many["layers 1 to 2"]
    assert few["layer 0"] == many["layer 0"] == 0
    assert verdict.outcome is Outcome.FAIL
