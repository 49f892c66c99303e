"""`kl.forward` from YAML: against a naive loop over plain transformers, and what must read 0."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from gated import PROMPTS, TEXTS, gated
from plain_tiny import logits_after
from tiny_copies import copy_of_base

from forgetguard.errors import CapabilityError
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Key

GATE = f"forgetguard: 2\n{PROMPTS}limits: {{kl.forward: {{max: LIMIT}}}}\n"


def naive(text: str, other: str = "sft") -> float:
    """KL(base || other) of the next token, summed in Python over the vocabulary, float64."""
    base, tuned = (logits_after(name, text).double().log_softmax(-1) for name in ("base", other))
    return math.fsum(
        math.exp(p) * (p - q) for p, q in zip(base.tolist(), tuned.tolist(), strict=True)
    )


def test_kl_is_the_naive_sum_and_its_mean_is_gated() -> None:
    verdicts, samples = gated(GATE.replace("LIMIT", "0.01"), tuned="tiny:sft")
    found = samples.arrays[Key("kl.forward", "", "tuned")]
    assert found.tolist() == pytest.approx([naive(text) for text in TEXTS], rel=1e-4, abs=1e-9)
    verdict = verdicts["kl.forward"]
    assert verdict.estimate is not None
    assert verdict.estimate.value == pytest.approx(found.mean(), rel=1e-12)
    assert verdict.estimate.low > 0.01
    assert (verdict.outcome, verdict.code) == (Outcome.FAIL, Code.BEYOND)
    assert verdict.units[0].clean == TEXTS[int(found.argmax())]


def test_a_wide_limit_passes_and_a_byte_copy_reads_exactly_0(tmp_path: Path) -> None:
    wide, _ = gated(GATE.replace("LIMIT", "50"), tuned="tiny:sft")
    assert wide["kl.forward"].outcome is Outcome.PASS
    verdicts, samples = gated(GATE.replace("LIMIT", "0"), tuned=copy_of_base(tmp_path))
    assert not samples.arrays[Key("kl.forward", "", "tuned")].any()
    assert verdicts["kl.forward"].outcome is Outcome.PASS


def test_a_completion_is_teacher_forced_and_its_tokens_averaged() -> None:
    with_completion = GATE.replace("LIMIT", "9").replace(
        f"  - {TEXTS[2]!r}\n",
        "  - {prompt: 'The capital of France is', completion: ' Paris .'}\n",
    )
    _, samples = gated(with_completion, tuned="tiny:sft")
    found = samples.arrays[Key("kl.forward", "", "tuned")][2]
    expected = [naive(TEXTS[2]), naive(f"{TEXTS[2]} Paris")]
    assert found == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_over_a_reference_it_is_the_paired_difference() -> None:
    text = f"forgetguard: 2\n{PROMPTS}limits: {{kl.forward.over_reference: {{max: 0.5}}}}\n"
    verdicts, samples = gated(text, tuned="tiny:sft", reference="tiny:rl")
    found = samples.arrays[Key("kl.forward", "", "reference")].tolist()
    assert found == pytest.approx([naive(text, "rl") for text in TEXTS], rel=1e-4, abs=1e-9)
    apart = (
        samples.arrays[Key("kl.forward", "", "tuned")]
        - samples.arrays[Key("kl.forward", "", "reference")]
    )
    estimate = verdicts["kl.forward.over_reference"].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(apart.mean(), rel=1e-12)
    assert torch.isfinite(torch.tensor(estimate.interval)).all()


def test_rows_that_training_added_to_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    config = json.loads((copy_of_base(tmp_path / "same") / "config.json").read_text())
    size = config["vocab_size"]

    def grow(tensors: dict[str, torch.Tensor]) -> None:
        for name, one in tensors.items():
            if len(one) == size and one.dim() == 2:
                tensors[name] = torch.cat([one, 3 * one[:2]])

    grown = copy_of_base(tmp_path / "grown", grow)
    (grown / "config.json").write_text(json.dumps(config | {"vocab_size": size + 2}))
    verdicts, samples = gated(GATE.replace("LIMIT", "0.001"), tuned=grown)
    assert abs(samples.arrays[Key("kl.forward", "", "tuned")]).max() < 1e-6
    assert verdicts["kl.forward"].outcome is Outcome.PASS


def test_another_tokenizer_with_as_many_but_other_ids_is_refused(tmp_path: Path) -> None:
    file = copy_of_base(tmp_path) / "tokenizer.json"
    data = json.loads(file.read_text())
    ids = data["model"]["vocab"]
    ids[" France"], ids[" bag"] = ids[" bag"], ids[" France"]
    file.write_text(json.dumps(data))
    with pytest.raises(CapabilityError):
        gated(GATE.replace("LIMIT", "50"), tuned=file.parent)
