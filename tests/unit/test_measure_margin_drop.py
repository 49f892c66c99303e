"""`margin.drop` from YAML: against a loop over plain transformers, and what it must not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gated import gated
from plain_tiny import ids_of, logits_after
from tiny_copies import copy_of_base
from torch import Tensor

from forgetguard.capabilities.readouts import lead
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Key

MARGIN = Key("margin.drop", "", "tuned")
GATE = """\
forgetguard: 2
capability: ioi
pairs: {task: ioi, count: 16, seed: 3}
readout: logit_diff
limits: {margin.drop: {max: LIMIT}}
"""


def naive(text: str, answer: int, model: str) -> float:
    """Token by token in Python: the answer's logit minus the best other's, in their spread."""
    logits = logits_after(model, text).double().tolist()
    mean = sum(logits) / len(logits)
    spread = (sum((one - mean) ** 2 for one in logits) / len(logits)) ** 0.5
    return (logits[answer] - max(logits[:answer] + logits[answer + 1 :])) / spread


def noised_unembedding(tensors: dict[str, Tensor]) -> None:
    weight = tensors["model.embed_tokens.weight"]
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    tensors["lm_head.weight"] = weight + 0.5 * weight.std() * noise
    weight.copy_(tensors["lm_head.weight"])  # tied in the tiny family


def shrunk_final_norm(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"] *= 0.3


def test_it_is_the_mean_of_what_a_loop_over_the_vocabulary_gives() -> None:
    verdicts, samples = gated(GATE.replace("LIMIT", "0.01"), tuned="tiny:sft")
    expected = []
    for pair in samples.units:
        answer = ids_of(f"{pair.clean}{pair.answer}")[0, -1].item()
        base, tuned = (naive(pair.clean, int(answer), model) for model in ("base", "sft"))
        expected.append(base - tuned)
    assert samples.arrays[MARGIN].tolist() == pytest.approx(expected, abs=1e-4)
    found = verdicts["margin.drop"]
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_a_byte_copy_reads_exactly_0_and_passes_a_limit_of_0(tmp_path: Path) -> None:
    verdicts, samples = gated(GATE.replace("LIMIT", "0"), tuned=copy_of_base(tmp_path))
    assert not samples.arrays[MARGIN].any()
    assert verdicts["margin.drop"].outcome is Outcome.PASS


def test_another_scale_of_the_logits_is_no_loss(tmp_path: Path) -> None:
    copy = copy_of_base(tmp_path, shrunk_final_norm)
    verdicts, samples = gated(GATE.replace("LIMIT", "0.01"), tuned=copy)
    assert samples.arrays[MARGIN] == pytest.approx(0, abs=1e-4)
    assert verdicts["margin.drop"].outcome is Outcome.PASS


def test_noise_behind_the_last_attention_is_a_loss(tmp_path: Path) -> None:
    copy = copy_of_base(tmp_path, noised_unembedding)
    found = gated(GATE.replace("LIMIT", "0.05"), tuned=copy)[0]["margin.drop"]
    assert (found.outcome, found.code) == (Outcome.FAIL, Code.BEYOND)


def test_any_valid_answer_may_lead_and_padding_is_no_token() -> None:
    logits = torch.tensor([[[1.0, 4.0, 2.0, 3.0]], [[5.0, 1.0, 1.0, 1.0]]])
    valid = torch.tensor([[[1, 3]], [[1, -1]]])
    found = lead(logits, valid)[:, 0]
    spreads = logits[:, 0].std(dim=1, correction=0)
    assert found.tolist() == pytest.approx([2 / spreads[0].item(), -4 / spreads[1].item()])
