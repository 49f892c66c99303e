"""DCV of the tiny family against a naive loop that shares no code with the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import literal
import pytest
import torch
import transformers
from placement import DEVICE, LOADED

import forgetguard as fg
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.anatomy.members import Head
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import load_gate_file

CIRCUITS = Path(__file__).parents[2] / "circuits"


@pytest.mark.parametrize("task", ["ioi", "induction"])
def test_dcv_equals_a_naive_loop_over_pairs(task: str) -> None:
    """One pair at a time, plain transformers, the definition as DESIGN writes it."""
    circuit = load_gate_file(CIRCUITS / f"tiny-{task}.circuit.yaml")
    folder = {role: resolve(f"tiny:{role}", "base").location for role in ("base", "sft")}
    base, tuned = (
        locate(transformers.AutoModelForCausalLM.from_pretrained(folder[role]).to(DEVICE).eval())
        for role in ("base", "sft")
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder["base"])
    lines = (CIRCUITS / "prompts" / f"tiny-{task}.jsonl").read_text().splitlines()[:8]
    rows = [json.loads(line) for line in lines]

    def ids(text: str) -> torch.Tensor:
        return torch.tensor([tokenizer(text)["input_ids"]])

    sets = [(head,) for head in circuit.members] + [circuit.members]
    damage, importance = torch.zeros(len(sets)), torch.zeros(len(sets))
    for row in rows:
        clean, counterfactual = ids(row["clean"]), ids(row["counterfactual"])
        y, other = ids(row["answer"]).item(), ids(row["distractor"]).item()

        def readout(logits: torch.Tensor, y: int = int(y), other: int = int(other)) -> float:
            return (logits[0, -1, y] - logits[0, -1, other]).item()

        own = literal.activations(base, counterfactual)
        foreign = literal.activations(tuned, clean)
        before = readout(literal.logits(base, clean, {}))
        for number, heads in enumerate(sets):
            wrong_prompt = literal.logits(base, clean, {head: own[head] for head in heads})
            wrong_model = literal.logits(
                base, clean, {head: foreign[head] for head in heads}, tuned
            )
            importance[number] += before - readout(wrong_prompt)
            damage[number] += before - readout(wrong_model)
    expected = damage / importance

    pairs = [
        fg.PromptPair(row["clean"], row["counterfactual"], row["answer"], row["distractor"])
        for row in rows
    ]
    pair = fg.load(base="tiny:base", tuned="tiny:sft", device=LOADED)
    result = fg.vulnerability(pair, fg.capability(task, pairs=pairs), circuit.members)
    assert result.circuit.value == pytest.approx(expected[-1].item(), rel=1e-3, abs=1e-4)
    for number, head in enumerate(circuit.members):
        if str(head) in result.heads:
            value = result.heads[str(Head(head.layer, head.index))].value
            assert value == pytest.approx(expected[number].item(), rel=1e-3, abs=1e-4)


def by_hand(layer: torch.nn.Module, hidden: torch.Tensor, rotary: torch.nn.Module) -> torch.Tensor:
    """z of every head of a Qwen3 attention on `hidden`, [row, pos, head, head_dim], written out."""
    attention, width = layer.self_attn, layer.self_attn.head_dim
    rows, length, _ = hidden.shape

    def split(matrix: torch.nn.Linear) -> torch.Tensor:
        return (hidden @ matrix.weight.T).view(rows, length, -1, width)

    def normed(values: torch.Tensor, scale: torch.nn.Module) -> torch.Tensor:
        size = values.pow(2).mean(-1, keepdim=True) + scale.variance_epsilon
        return values * size.rsqrt() * scale.weight

    def turned(values: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(length, device=hidden.device)[:, None] * rotary.inv_freq
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        a, b = values.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    q = turned(normed(split(attention.q_proj), attention.q_norm))
    k = turned(normed(split(attention.k_proj), attention.k_norm))
    v = split(attention.v_proj)
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    scores = torch.einsum("rqhd,rkhd->rhqk", q, k) / width**0.5
    causal = torch.ones(length, length, device=hidden.device).triu(1).bool()
    weights = scores.masked_fill(causal, float("-inf")).softmax(-1)
    return torch.einsum("rhqk,rkhd->rqhd", weights, v)


def layer_inputs(anatomy: Anatomy, ids: torch.Tensor) -> dict[int, torch.Tensor]:
    """The residual stream that each layer is given."""
    inputs: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda _, args, kwargs: inputs.update({layer: args[0]})

    handles = [
        layer.register_forward_pre_hook(keep(i), with_kwargs=True)
        for i, layer in enumerate(anatomy.layers)
    ]
    literal.logits(anatomy, ids, {})
    for handle in handles:
        handle.remove()
    return inputs


def test_own_damage_equals_attention_written_out_by_hand() -> None:
    """The tuned norm and head on the base's residual stream, with no code of the engine's."""
    models = {
        role: transformers.AutoModelForCausalLM.from_pretrained(
            resolve(f"tiny:{role}", "base").location
        )
        .to(DEVICE)
        .eval()
        for role in ("base", "sft")
    }
    base, tuned = (locate(models[role]) for role in ("base", "sft"))
    heads = (Head(0, 1), Head(1, 2), Head(2, 2))
    pairs = fg.capability("key_value", pairs=8, seed=3)
    pair = fg.load(base="tiny:base", tuned="tiny:sft", device=LOADED)
    encoded = pairs.encoded(pair.base.tokenizer)
    result = fg.vulnerability(pair, pairs, heads)
    for batch in encoded.batches:
        inputs = layer_inputs(base, batch.clean)
        clean = literal.logits(base, batch.clean, {})
        assert batch.distractor is not None
        y, other = batch.answer.to(DEVICE), batch.distractor.to(DEVICE)

        def readout(
            logits: torch.Tensor, y: torch.Tensor = y, other: torch.Tensor = other
        ) -> torch.Tensor:
            return (logits[:, -1].gather(1, y) - logits[:, -1].gather(1, other))[:, 0]

        for head in heads:
            with torch.no_grad():
                layer = tuned.layers[head.layer]
                given: Any = layer.input_layernorm(inputs[head.layer])
                z = by_hand(layer, given, models["sft"].model.rotary_emb)[:, :, head.index]
            patched = literal.logits(base, batch.clean, {head: z}, tuned)
            expected = (readout(clean) - readout(patched)).cpu().numpy()
            measured = result.samples.need("own_damage", str(head))[list(batch.pairs)]
            assert measured == pytest.approx(expected, abs=2e-4)
            assert abs(expected).max() > 1e-3
