"""forgetguard from Python: discover, save, measure."""

from __future__ import annotations

from pathlib import Path

import literal
import pytest
import torch

import forgetguard as fg
from forgetguard.anatomy.heads import Head
from forgetguard.anatomy.locate import locate
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.spec import resolve
from forgetguard.discovery.scores import ScoredHeads
from forgetguard.gate.schema import load_circuit_file

A, B, C, D = Head(0, 3), Head(1, 0), Head(0, 1), Head(2, 2)


def test_a_circuit_is_the_bottleneck_and_every_strong_head() -> None:
    found = ScoredHeads({A: 9.0, B: -2.0, C: 1.0, D: 0.2}, 10.0, (0.85, 0.9, 0.95, 1.0), "m")
    assert found.circuit(share=0.8, each=0.15) == (A, B)
    assert found.circuit(share=0.8, each=0.5) == (A,)
    assert found.circuit(share=0.92, each=0.5) == (C, A, B)
    assert found.circuit(share=1.0, each=1.0) == (C, A, B, D)


def test_discovery_scores_heads_as_a_naive_loop_does() -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    ioi = fg.capability("ioi", pairs=8, seed=7)
    circuit = fg.discover(pair.base, ioi)
    assert circuit.found is not None
    assert circuit.found.curve[-1] == pytest.approx(1.0)

    base = locate(load_model(resolve("tiny:base", "base")))
    drops = dict.fromkeys(base.heads, 0.0)
    for one in ioi.encoded(pair.base.tokenizer).encoded.pairs:
        clean, counterfactual = torch.tensor([one.clean]), torch.tensor([one.counterfactual])
        z = literal.activations(base, counterfactual)
        for head in base.heads:
            for sign, patch in ((1, {}), (-1, {head: z[head]})):
                logits = literal.logits(base, clean, patch)[0, -1]
                difference = (logits[one.answer[0]] - logits[one.distractor[0]]).item()
                drops[head] += sign * difference / 8
    assert set(circuit.found.scores) == set(drops)
    for head, score in circuit.found.scores.items():
        assert score == pytest.approx(drops[head], abs=1e-4)


def test_a_discovered_circuit_is_saved_as_a_file_that_gates(tmp_path: Path) -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    circuit = fg.discover(pair.base, fg.capability("fact_recall", pairs=16, seed=2))
    path = tmp_path / "facts.circuit.yaml"
    written = circuit.save(path, limits={"dcv.circuit": 0.2})
    read = load_circuit_file(path)
    assert read == written
    assert read.heads == circuit.heads
    assert [(limit.key, limit.maximum) for limit in read.limits] == [("dcv.circuit", 0.2)]
    assert read.found is not None
    assert read.found["method"] == "activation_patching"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fg.capability("nonsense"), "there is no task 'nonsense'"),
        (lambda: fg.capability("ioi", readout="logits"), "unknown readout 'logits'"),
        (lambda: fg.load(base="tiny:base", tuned="tiny:base"), "allow_same"),
        (lambda: fg.load(base="tiny:base", tuned="./not-there"), "no such directory"),
        (lambda: fg.load(base="tiny:base", tuned="tiny:sft", dtype="float8"), "float8"),
    ],
)
def test_misuse_is_told_before_anything_is_loaded(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(fg.ForgetguardError, match=message):
        call()


def test_unknown_methods_and_shares_are_refused() -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    ioi = fg.capability("ioi", pairs=8)
    with pytest.raises(fg.ForgetguardError, match="unknown method 'magic'"):
        fg.discover(pair.base, ioi, method="magic")
    with pytest.raises(fg.ForgetguardError, match="share"):
        fg.discover(pair.base, ioi, share=0.0)
