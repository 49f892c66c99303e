"""`mode.mass` and `mode.drift` from YAML: against a loop over plain transformers, and beside KL."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from gated import PROMPTS, TEXTS, gated
from plain_tiny import logits_after
from tiny_copies import copy_of_base

from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Key

MASS, DRIFT = (Key(f"mode.{name}", "", "tuned") for name in ("mass", "drift"))
GATE = f"forgetguard: 2\n{PROMPTS}limits: {{mode.mass: {{max: ONE}}, mode.drift: {{max: TWO}}}}\n"


def gate(mass: float, drift: float) -> str:
    return GATE.replace("ONE", str(mass)).replace("TWO", str(drift))


def naive(text: str) -> tuple[float, float]:
    """(mass lost, drift) of tiny:sft, in Python over the vocabulary, float64."""
    p, q = (logits_after(name, text).double().softmax(-1).tolist() for name in ("base", "sft"))
    mode: list[int] = []
    for token in sorted(range(len(p)), key=lambda one: -p[one]):
        if math.fsum(p[one] for one in mode) >= 0.9:
            break
        mode.append(token)
    ours, theirs = (math.fsum(of[one] for one in mode) for of in (p, q))
    drift = math.fsum(p[one] / ours * math.log((p[one] / ours) / (q[one] / theirs)) for one in mode)
    return ours - theirs, drift


def test_they_are_what_a_loop_gives_and_their_means_are_gated() -> None:
    verdicts, samples = gated(gate(0.005, 9), tuned="tiny:sft")
    expected = [naive(text) for text in TEXTS]
    for key, values in zip((MASS, DRIFT), zip(*expected, strict=True), strict=True):
        assert samples.arrays[key].tolist() == pytest.approx(list(values), rel=1e-4, abs=1e-6)
        estimate = verdicts[key.quantity].estimate
        assert estimate is not None
        assert estimate.value == pytest.approx(sum(values) / len(values), rel=1e-4)
    assert verdicts["mode.mass"].code is Code.BEYOND
    assert verdicts["mode.drift"].outcome is Outcome.PASS


def test_a_byte_copy_reads_exactly_0_and_passes_limits_of_0(tmp_path: Path) -> None:
    verdicts, samples = gated(gate(0, 0), tuned=copy_of_base(tmp_path))
    assert not samples.arrays[MASS].any()
    assert not samples.arrays[DRIFT].any()
    assert {one.outcome for one in verdicts.values()} == {Outcome.PASS}


def test_over_a_reference_they_are_paired_differences() -> None:
    text = f"forgetguard: 2\n{PROMPTS}limits: {{mode.mass.over_reference: {{max: 0.5}}}}\n"
    verdicts, samples = gated(text, tuned="tiny:sft", reference="tiny:rl")
    apart = samples.arrays[MASS] - samples.arrays[MASS._replace(role="reference")]
    estimate = verdicts["mode.mass.over_reference"].estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(apart.mean(), rel=1e-12)
