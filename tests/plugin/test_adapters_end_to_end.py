"""The gate on adapters that are not what they seem: real checkpoints, in a process of its own."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from gate_process import run_gate
from test_end_to_end import CIRCUITS

from forgetguard.checkpoints.quiet import quiet
from forgetguard.checkpoints.spec import resolve

CIRCUIT = "tiny-induction.circuit.yaml"


def _judged(folder: Path, *, spoil: float) -> tuple[int, str, dict[str, Any]]:
    """Status, output and JSON of the gate on a PiSSA adapter whose B was multiplied by `spoil`."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = resolve("tiny:base", "base").location
    config = peft.LoraConfig(
        r=2, lora_alpha=2, target_modules=["q_proj"], layers_to_transform=[1],
        init_lora_weights="pissa", task_type="CAUSAL_LM",
    )  # fmt: skip
    with quiet(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.mul_(spoil)
        model.save_pretrained(str(folder / "adapter"))
    (folder / "prompts").mkdir()
    shutil.copy(CIRCUITS / CIRCUIT, folder)
    shutil.copy(CIRCUITS / "prompts" / "tiny-induction.jsonl", folder / "prompts")
    status, output = run_gate(
        folder, "base=tiny:base", "tuned=adapter", CIRCUIT, "--forgetguard-json", "r.json"
    )
    return status, output, json.loads((folder / "r.json").read_text())


def test_an_adapter_that_takes_a_skill_out_of_the_base_is_judged_against_the_base_itself(
    tmp_path: Path,
) -> None:
    """Its base, switched off, has lost the skill too: 45 of 64 right, and a DCV of 0."""
    status, output, results = _judged(tmp_path, spoil=1e-4)
    first = results["circuits"][0]["measured"]["arrays"]["top1"]
    assert status == 1, output
    assert (sum(first["base"][""]), sum(first["tuned"][""])) == (60, 45)


def test_an_adapter_that_changes_nothing_is_noted_beside_its_verdicts(tmp_path: Path) -> None:
    status, output, results = _judged(tmp_path, spoil=1.0)
    assert status == 0, output
    verdicts = [verdict for result in results["results"] for verdict in result["verdicts"]]
    assert verdicts
    for verdict in verdicts:
        note = verdict["notes"][0]
        assert (note["code"], "changes nothing" in note["facts"]["why"]) == ("checkpoint", True)
    assert "the adapter changes nothing" in output
