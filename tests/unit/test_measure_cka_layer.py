"""`cka.layer` from YAML: against the jackknife of a plain CKA on plain transformers' streams."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gated import PROMPTS, TEXTS, gated
from plain_tiny import streams_after
from tiny_copies import copy_of_base

from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import Key

ROOT = Path(__file__).parents[2]
GATE = f"forgetguard: 2\n{PROMPTS}limits: {{cka.layer: {{max: LIMIT}}}}\n"


def plain_cka(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Linear CKA by HSIC_1 (Song et al. 2012, equation 5), term by term."""

    def hsic(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
        n = len(one)
        k, m = (rows @ rows.T for rows in (one, other))
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        return float(
            np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k @ m).sum() / (n - 2)
        )

    return hsic(first, second) / np.sqrt(hsic(first, first) * hsic(second, second))


def test_pseudo_values_are_those_of_leaving_each_prompt_out() -> None:
    verdicts, samples = gated(GATE.replace("LIMIT", "0.001"), tuned="tiny:sft")
    base, tuned = (
        np.stack([streams_after(name, text).double().numpy() for text in TEXTS], axis=1)
        for name in ("base", "sft")
    )
    count = len(TEXTS)
    for layer in range(len(base)):
        whole = plain_cka(base[layer], tuned[layer])
        without = [
            plain_cka(np.delete(base[layer], at, axis=0), np.delete(tuned[layer], at, axis=0))
            for at in range(count)
        ]
        expected = [1 - (count * whole - (count - 1) * one) for one in without]
        found = samples.arrays[Key("cka.layer", f"layer {layer}", "tuned")]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)
    verdict = verdicts["cka.layer"]
    means = {key.subject: values.mean() for key, values in samples.arrays.items()}
    assert verdict.subject == max(means, key=lambda layer: means[layer])
    assert verdict.subjects[0].subject == verdict.subject
    assert verdict.facts["of"] == len(base)


def test_a_byte_copy_reads_0_and_noise_in_one_matrix_is_seen_from_its_layer_on(
    tmp_path: Path,
) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.2.mlp.down_proj.weight"
        noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
        tensors[name] += noise * tensors[name].std() * 3

    prompts = ROOT / "circuits" / "prompts" / "tiny-induction.jsonl"
    texts = [json.loads(line)["clean"] for line in prompts.read_text().splitlines()]
    gate = f"forgetguard: 2\nprompts: {json.dumps(texts)}\nlimits: {{cka.layer: {{max: LIMIT}}}}\n"
    same, samples = gated(gate.replace("LIMIT", "0"), tuned=copy_of_base(tmp_path / "same"))
    assert same["cka.layer"].outcome is Outcome.PASS
    assert all(abs(values).max() < 1e-12 for values in samples.arrays.values())
    verdicts, samples = gated(
        gate.replace("LIMIT", "0.05"), tuned=copy_of_base(tmp_path / "noisy", damage)
    )
    drift = [samples.arrays[Key("cka.layer", f"layer {at}", "tuned")].mean() for at in range(4)]
    assert drift[0] == pytest.approx(0, abs=1e-9)
    assert drift[1] == pytest.approx(0, abs=1e-9)
    assert min(drift[2:]) > 0.05
    assert verdicts["cka.layer"].code in (Code.BEYOND, Code.UNDECIDED)
    assert verdicts["cka.layer"].outcome is not Outcome.PASS
