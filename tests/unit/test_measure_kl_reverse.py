"""`kl.reverse` from YAML: against a naive loop over plain transformers; beside `kl.forward`."""

from __future__ import annotations

import math

import pytest
from gated import PROMPTS, TEXTS, gated
from plain_tiny import logits_after

from forgetguard.gate.verdict import Outcome
from forgetguard.measures.samples import Key

GATE = f"forgetguard: 2\n{PROMPTS}limits: {{kl.reverse: {{max: 0.01}}, kl.forward: {{max: 9}}}}\n"


def naive(text: str) -> float:
    """KL(tuned || base) of the next token, summed in Python over the vocabulary, float64."""
    base, tuned = (logits_after(name, text).double().log_softmax(-1) for name in ("base", "sft"))
    return math.fsum(
        math.exp(q) * (q - p) for p, q in zip(base.tolist(), tuned.tolist(), strict=True)
    )


def test_kl_is_the_naive_sum_and_its_mean_is_gated() -> None:
    verdicts, samples = gated(GATE, tuned="tiny:sft")
    found = samples.arrays[Key("kl.reverse", "", "tuned")]
    assert found.tolist() == pytest.approx([naive(text) for text in TEXTS], rel=1e-4, abs=1e-9)
    assert (found != samples.arrays[Key("kl.forward", "", "tuned")]).any()
    assert [verdict.outcome for verdict in verdicts.values()] == [Outcome.FAIL, Outcome.PASS]


def test_swapped_models_swap_the_directions() -> None:
    there, back = (
        gated(GATE, base=base, tuned=tuned)[1].arrays
        for base, tuned in (("tiny:base", "tiny:sft"), ("tiny:sft", "tiny:base"))
    )
    forward, reverse = (Key(f"kl.{way}", "", "tuned") for way in ("forward", "reverse"))
    assert there[forward] == pytest.approx(back[reverse], rel=1e-9)
    assert there[reverse] == pytest.approx(back[forward], rel=1e-9)
