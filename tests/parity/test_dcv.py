"""DCV of the tiny family against a naive loop that shares no code with the engine."""

from __future__ import annotations

import json
from pathlib import Path

import literal
import pytest
import torch
import transformers

import forgetguard as fg
from forgetguard.anatomy.heads import Head
from forgetguard.anatomy.locate import locate
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import load_circuit_file

CIRCUITS = Path(__file__).parents[2] / "circuits"


@pytest.mark.parametrize("task", ["ioi", "induction"])
def test_dcv_equals_a_naive_loop_over_pairs(task: str) -> None:
    """One pair at a time, plain transformers, the definition as DESIGN writes it."""
    circuit = load_circuit_file(CIRCUITS / f"tiny-{task}.circuit.yaml")
    folder = {role: resolve(f"tiny:{role}", "base").location for role in ("base", "sft")}
    base, tuned = (
        locate(transformers.AutoModelForCausalLM.from_pretrained(folder[role]).eval())
        for role in ("base", "sft")
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder["base"])
    lines = (CIRCUITS / "prompts" / f"tiny-{task}.jsonl").read_text().splitlines()[:12]
    rows = [json.loads(line) for line in lines]

    def ids(text: str) -> torch.Tensor:
        return torch.tensor([tokenizer(text)["input_ids"]])

    sets = [(head,) for head in circuit.heads] + [circuit.heads]
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
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    result = fg.vulnerability(pair, fg.capability(task, pairs=pairs), circuit.heads)
    assert result.circuit.value == pytest.approx(expected[-1].item(), rel=1e-3, abs=1e-4)
    for number, head in enumerate(circuit.heads):
        if str(head) in result.heads:
            value = result.heads[str(Head(head.layer, head.index))].value
            assert value == pytest.approx(expected[number].item(), rel=1e-3, abs=1e-4)
