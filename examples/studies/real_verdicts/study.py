"""Gates changed copies of a pretrained model, and measures beside it, on other prompts and without
forgetguard's engine, what each copy has lost."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from examples.studies.command import Say
from examples.studies.real_verdicts import changes
from examples.studies.real_verdicts.changes import Change, Shape, Weights
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.bundled import bundled_files
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Verdict

CAPABILITIES = ("ioi", "docstring", "agreement", "in_context_mapping")
PROMPT_SEED = 1  # of the gate's prompts; the independent measurement draws others
OTHER_SEED = 77_777
OTHER_PAIRS = 64

Data = dict[str, Any]


def circuits() -> dict[str, GateSpec]:
    """The bundled circuits of this model, by capability, on prompts that no file fixes."""
    found = {}
    for path in bundled_files():
        if path.name.startswith("smollm2-135m-instruct-"):
            spec = load_gate_file(path)
            found[spec.capability] = replace(spec, prompt_seed=PROMPT_SEED)
    return {name: found[name] for name in CAPABILITIES}


def run(model: Path, out: Path, say: Say, only: str = "") -> None:
    """Judge every change whose name holds `only`; what is in `out` already is not done again."""
    specs = circuits()
    shape = Shape.of(json.loads((model / "config.json").read_text()))
    others = {name: other_prompts(model, spec) for name, spec in specs.items()}
    done: Data = json.loads(out.read_text()) if out.exists() else {}
    base = plain(model, others)
    family = sum(len(spec.limits) for spec in specs.values())
    for change in planned(specs, shape, others):
        if change.name in done or only not in change.name:
            continue
        with tempfile.TemporaryDirectory(dir=out.parent) as work:
            tuned = copy(model, Path(work) / "tuned", change)
            chosen = {n: s for n, s in specs.items() if change.capability in ("", n)}
            verdicts = judged(model, tuned, chosen, family=family)
            found = plain(tuned, {name: others[name] for name in chosen}, base=model)
        done[change.name] = {
            "kind": change.kind,
            "head": list(change.head or ()),
            "limits": [told(one) for one in verdicts],
            "behaviour": {name: {"base": base[name], "tuned": found[name]} for name in chosen},
        }
        out.write_text(json.dumps(done, indent=1))
        say(f"{change.name}: {', '.join(sorted({one.outcome.value for one in verdicts}))}")


def planned(
    specs: Mapping[str, GateSpec], shape: Shape, others: Mapping[str, EncodedCapability]
) -> list[Change]:
    """Every change, in a fixed order."""
    found = []
    for name, spec in specs.items():
        found += changes.head_plants(shape, name, important(spec))
    pairs = others["ioi"].encoded.pairs
    words = sorted({ids[0] for one in pairs for ids in (one.answer, one.distractor)})
    return [*found, *changes.harmless(shape), *changes.outside(shape, words)]


def important(spec: GateSpec) -> list[tuple[int, int]]:
    """The circuit's heads as (layer, head), the most important first."""
    scores: Mapping[str, float] = (spec.found or {})["scores"]
    heads = [str(one) for one in spec.members if "H" in str(one)]
    ranked = sorted(heads, key=lambda one: -scores[one])
    return [(int(layer), int(head)) for layer, head in (one[1:].split("H") for one in ranked)]


# --- the gate ------------------------------------------------------------------------------------


def judged(base: Path, tuned: Path, specs: Mapping[str, GateSpec], family: int) -> list[Verdict]:
    """Every limit, as `pytest --forgetguard` judges it."""
    roles = {"base": base, "tuned": tuned}
    pair = ModelPair({role: resolve(str(path), role) for role, path in roles.items()})
    session = GateSession(pair, list(specs.values()), family=family)
    try:
        return [session.judge(spec, limit) for spec in specs.values() for limit in spec.limits]
    finally:
        session.close()


def told(verdict: Verdict) -> Data:
    """What the table needs of a verdict."""
    estimate = verdict.estimate
    return {
        "circuit": verdict.circuit,
        "limit": verdict.limit,
        "outcome": verdict.outcome.value,
        "code": verdict.code.value,
        "value": None if estimate is None else [estimate.value, estimate.low, estimate.high],
        "subjects": [one.subject for one in verdict.subjects[:3]],
    }


# --- the copies ----------------------------------------------------------------------------------


def copy(model: Path, target: Path, change: Change) -> Path:
    """The changed checkpoint."""
    target.mkdir()
    if change.lora:
        return adapter(model, target, change)
    for file in model.resolve().iterdir():
        if file.name != "model.safetensors":
            shutil.copy(file, target / file.name)
    weights: Weights = load_file(model / "model.safetensors")
    if change.untied:
        config = json.loads((target / "config.json").read_text())
        config["tie_word_embeddings"] = False
        (target / "config.json").write_text(json.dumps(config))
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    assert change.edit is not None
    change.edit(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def adapter(model: Path, target: Path, change: Change) -> Path:
    """A LoRA adapter of rank 4 on queries and values, as large as a first step leaves it."""
    tensors: Weights = {}
    for number, (name, weight) in enumerate(sorted(load_file(model / "model.safetensors").items())):
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            left = changes.noise((weight.shape[0], 4), seed=2 * number)
            right = changes.noise((4, weight.shape[1]), seed=2 * number + 1)
            left *= change.lora * weight.norm() / (left @ right).norm()
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": right, f"{stem}.lora_B.weight": left}
    save_file(tensors, target / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 4,
        "base_model_name_or_path": str(model.resolve()), "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip
    (target / "adapter_config.json").write_text(json.dumps(settings))
    return target


# --- behaviour on other prompts, by transformers alone -------------------------------------------


def other_prompts(model: Path, spec: GateSpec) -> EncodedCapability:
    """Pairs of the same task that the gate does not see."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    source: Any = spec.pairs
    return Capability(
        spec.capability, spec.readout, task=source.task, count=OTHER_PAIRS, seed=OTHER_SEED
    ).encoded(tokenizer)


def plain(
    model: Path, prompts: Mapping[str, EncodedCapability], base: Path | None = None
) -> dict[str, Data]:
    """By capability: the mean difference of the two answers' logits, and the share of pairs with
    the answer above the distractor, one prompt at a time."""
    from transformers import AutoModelForCausalLM

    if (model / "adapter_config.json").exists():
        from peft import PeftModel

        plainly: Any = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
        loaded: Any = PeftModel.from_pretrained(plainly, str(model))
    else:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    found = {}
    for name, capability in prompts.items():
        margins = []
        for one in capability.encoded.pairs:
            with torch.no_grad():
                logits = loaded(torch.tensor([one.clean])).logits[0, -1]
            margins.append(float(logits[one.answer[0]] - logits[one.distractor[0]]))
        values = np.array(margins)
        found[name] = {"margin": float(values.mean()), "right": float((values > 0).mean())}
    return found
