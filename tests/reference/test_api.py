"""forgetguard from Python: discover, save, measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import literal
import pytest
import torch

import forgetguard as fg
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import halves
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import load_gate_file


def test_a_circuit_is_what_a_naive_loop_finds() -> None:
    """Scores on one half of the pairs, faithfulness on the other, all by literal forward passes."""
    base_checkpoint = fg.load(base="tiny:base").base
    ioi = fg.capability("ioi", pairs=16, seed=7)
    circuit = fg.discover(base_checkpoint, ioi, faithful=0.7)
    assert circuit.found is not None

    base = locate(load_model(resolve("tiny:base", "base")))
    ranked_on, held_out = halves(ioi.encoded(base_checkpoint.tokenizer))

    def mean(pairs: EncodedCapability, patched: Sequence[Member]) -> float:
        """F with the heads of `patched` from the counterfactual."""
        total = 0.0
        for one in pairs.encoded.pairs:
            z = literal.activations(base, torch.tensor([one.counterfactual]))
            patch = {head: z[head] for head in patched}
            logits = literal.logits(base, torch.tensor([one.clean]), patch)[0, -1]
            total += (logits[one.answer[0]] - logits[one.distractor[0]]).item()
        return total / pairs.n_pairs

    clean = mean(ranked_on, ())
    scores = {head: clean - mean(ranked_on, (head,)) for head in base.heads}
    assert set(circuit.found.ranking.scores) == set(scores)
    for head, score in circuit.found.ranking.scores.items():
        assert score == pytest.approx(scores[head], abs=1e-4)

    signed = circuit.found.signed
    order = sorted(scores, key=lambda head: -scores[head] if signed else -abs(scores[head]))
    none, every = mean(held_out, base.heads), mean(held_out, ())
    every_lost = mean(ranked_on, base.heads)
    curve = [
        (mean(held_out, order[size:]) - none) / (every - none) for size in range(1, len(order) + 1)
    ]
    assert circuit.found.curve.faithfulness == pytest.approx(curve, abs=1e-4)
    size = len(circuit.heads)
    assert circuit.heads == tuple(sorted(order[:size]))
    assert min(curve[size - 1 :]) >= 0.7  # at all larger sizes too
    assert all(
        head in circuit.heads for head in order if scores[head] >= 0.1 * (clean - every_lost)
    )


def test_a_discovered_circuit_is_saved_as_a_file_that_gates(tmp_path: Path) -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    circuit = fg.discover(pair.base, fg.capability("fact_recall", pairs=16, seed=2))
    path = tmp_path / "facts.circuit.yaml"
    written = circuit.save(path, limits={"dcv.circuit": 0.2})
    read = load_gate_file(path)
    assert read == written
    assert read.members == circuit.heads
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


def test_unknown_methods_and_settings_are_refused() -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    ioi = fg.capability("ioi", pairs=8)
    with pytest.raises(fg.ForgetguardError, match="unknown method 'magic'"):
        fg.discover(pair.base, ioi, method="magic")
    with pytest.raises(fg.ForgetguardError, match="faithful"):
        fg.discover(pair.base, ioi, faithful=0.0)
    with pytest.raises(fg.ForgetguardError, match="no setting 'steps'"):
        fg.discover(pair.base, ioi, settings={"steps": 3})
    with pytest.raises(fg.ForgetguardError, match="unknown ablation 'noise'"):
        fg.discover(pair.base, ioi, ablation="noise")
