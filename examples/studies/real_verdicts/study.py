"""Gates changed copies of a pretrained model, and measures beside it, on other prompts and without
forgetguard's engine, what each copy has lost."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
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
from forgetguard.whole_files import write_text

WHOLE = ("ioi", "agreement", "fact_recall", "induction")
"""What copies are judged by whose damage is in no one circuit."""
PLANTED = (*WHOLE, "in_context_rule", "key_value", "repetition")
"""Whose important heads are damaged."""
IMPORTANT = 0.25  # of the effect, by the circuit's file: from which share on a head is damaged
LISTED = 0.20  # from which share on a head's parts are candidates for `choose`
COSTLY = 0.25  # of the margin, on prompts of their own: what a chosen plant costs at least
CHOSEN = 40  # plants, at most a fourth of one capability as long as the others have some
CHOICE_SEED = 55_555
CHOICE = "chosen.json"  # beside the results
PROMPT_SEED = 1  # of the gate's prompts; the independent measurement draws others
OTHER_SEED = 77_777
OTHER_PAIRS = 64
PREFIX = "smollm2-135m-instruct-"

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is judged by what: the circuits on prompts that no file fixes, other prompts of the same
    tasks, the base's behaviour on those, the limits of a default run, and every change by name."""

    model: Path
    specs: Mapping[str, GateSpec]
    others: Mapping[str, EncodedCapability]
    base: Mapping[str, Data]
    family: int
    changes: Mapping[str, Change]

    @classmethod
    def of(
        cls, model: Path, base: Mapping[str, Data] | None = None, chosen: Sequence[str] = ()
    ) -> Plan:
        shape = Shape.of(json.loads((model / "config.json").read_text()))
        specs = circuits()
        others = {name: other_prompts(model, specs[name]) for name in PLANTED}
        plants = {
            name: changes.head_plants(shape, name, important(specs[name])) for name in PLANTED
        }
        known = dict(base or {})
        missing = {name: one for name, one in others.items() if name not in known}
        pairs = others["ioi"].encoded.pairs
        words = sorted({ids[0] for one in pairs for ids in (one.answer, one.distractor)})
        made = [one for name in WHOLE for one in plants.pop(name)]
        made += [*changes.harmless(shape), *changes.outside(shape, words), *changes.stronger(shape)]
        made += [one for each in plants.values() for one in each]
        made += [one for one in candidates(shape, specs) if one.name in chosen]
        return cls(
            model,
            specs,
            others,
            {**known, **plain(model, missing)} if missing else known,
            sum(len(spec.limits) for spec in specs.values() if spec.core),
            {one.name: one for one in made},
        )

    def judge(self, name: str) -> Data:
        """Make the copy, gate it, and measure beside it what it lost."""
        change = self.changes[name]
        chosen = (change.capability,) if change.capability else WHOLE
        specs = {each: self.specs[each] for each in chosen}
        with tempfile.TemporaryDirectory() as work:
            tuned = copy(self.model, Path(work) / "tuned", change)
            verdicts = judged(self.model, tuned, specs, self.family)
            found = plain(tuned, {each: self.others[each] for each in chosen}, base=self.model)
        return {
            "kind": change.kind,
            "head": list(change.head or ()),
            "limits": [told(one) for one in verdicts],
            "behaviour": {each: {"base": self.base[each], "tuned": found[each]} for each in chosen},
        }


def circuits() -> dict[str, GateSpec]:
    """The bundled circuits of this model, by capability; those of `WHOLE` first."""
    found = {}
    for path in bundled_files():
        if path.name.startswith(PREFIX):
            spec = load_gate_file(path)
            found[spec.capability] = replace(spec, prompt_seed=PROMPT_SEED)
    return {name: found[name] for name in [*WHOLE, *sorted(set(found) - set(WHOLE))]}


def important(spec: GateSpec, share: float = IMPORTANT) -> list[tuple[int, int]]:
    """The heads worth `share` of the circuit's effect as (layer, head), the most important
    first."""
    found: Mapping[str, Any] = spec.found or {}
    scores: Mapping[str, float] = found["scores"]
    heads = [name for name in scores if scores[name] >= share * found["whole_effect"]]
    ranked = sorted(heads, key=lambda one: -scores[one])
    return [(int(layer), int(head)) for layer, head in (one[1:].split("H") for one in ranked)]


def candidates(shape: Shape, specs: Mapping[str, GateSpec]) -> list[Change]:
    """What `choose` chooses from: damage to one head that is none of `head_plants`."""
    found = []
    for name in WHOLE:
        known = {one.name for one in changes.head_plants(shape, name, important(specs[name]))}
        heads = important(specs[name], LISTED)
        found += [one for one in changes.all_plants(shape, name, heads) if one.name not in known]
    return found


def choose(model: Path, out: Path, say: Say) -> None:
    """Write, beside the results `out`, the names of `CHOSEN` plants that cost at least `COSTLY` of
    their capability's margin, measured by transformers alone before any of them is gated, on
    prompts that are neither the gate's nor those of the results. They are taken in an order drawn
    once, the capabilities by turns."""
    shape = Shape.of(json.loads((model / "config.json").read_text()))
    specs = circuits()
    prompts = {name: other_prompts(model, specs[name], CHOICE_SEED) for name in WHOLE}
    loaded = plainly_loaded(model)
    before = behaviour(loaded, prompts)
    drawn = np.random.default_rng(CHOICE_SEED)
    found = candidates(shape, specs)
    order = [found[int(index)] for index in drawn.permutation(len(found))]
    left = {name: [one for one in order if one.capability == name] for name in WHOLE}
    measured: dict[str, float] = {}
    chosen: list[str] = []
    while len(chosen) < CHOSEN and any(left.values()):
        for name in WHOLE:
            while left[name] and len(chosen) < CHOSEN:
                one = left[name].pop(0)
                after = _with(loaded, one, {name: prompts[name]})[name]
                measured[one.name] = 1 - after["margin"] / before[name]["margin"]
                say(f"{one.name}: {measured[one.name]:.2f} of the margin")
                if measured[one.name] >= COSTLY:
                    chosen.append(one.name)
                    break
    write_text(out.with_name(CHOICE), json.dumps({"chosen": chosen, "cost": measured}, indent=1))


def _with(loaded: Any, change: Change, prompts: Mapping[str, EncodedCapability]) -> dict[str, Data]:
    """The behaviour of the loaded model with a head's damage, which is undone again."""
    assert change.edit is not None
    assert change.head is not None
    weights = {
        name: tensor
        for name, tensor in loaded.state_dict().items()
        if f".layers.{change.head[0]}.self_attn." in name
    }
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    with torch.no_grad():
        change.edit(weights)
        found = behaviour(loaded, prompts)
        for name, tensor in kept.items():
            weights[name].copy_(tensor)
    return found


def run(model: Path, out: Path, say: Say, only: Sequence[str] = (), workers: int = 1) -> None:
    """Judge every change whose name holds one of `only` (all), in as many processes; what is in
    `out` already is not done again, and `out` is whole after every copy."""
    done: Data = json.loads(out.read_text()) if out.exists() else {}
    say(f"{len(done)} copies are done; the base is measured")
    known = {name: one["base"] for row in done.values() for name, one in row["behaviour"].items()}
    choice = out.with_name(CHOICE)
    chosen = json.loads(choice.read_text())["chosen"] if choice.exists() else []
    plan = Plan.of(model, known, chosen)
    wanted = [name for name in plan.changes if any(one in name for one in only or [""])]
    todo = [name for name in wanted if name not in done]
    say(f"{len(todo)} copies to judge")
    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(model, plan.base, chosen),
    ) as pool:
        started = {pool.submit(_judge, name): name for name in todo}
        for number, future in enumerate(as_completed(started), 1):
            name = started[future]
            done[name] = future.result() | ({"chosen": True} if name in chosen else {})
            order = [*plan.changes, *(each for each in done if each not in plan.changes)]
            ordered = {each: done[each] for each in order if each in done}
            write_text(out, json.dumps(ordered, indent=1))
            outcomes = sorted({one["outcome"] for one in done[name]["limits"]})
            say(f"{number} of {len(todo)}, {name}: {', '.join(outcomes)}")


_PLAN: list[Plan] = []  # of a worker


def _begin(model: Path, base: Mapping[str, Data], chosen: Sequence[str]) -> None:
    _PLAN[:] = [Plan.of(model, base, chosen)]


def _judge(name: str) -> Data:
    return _PLAN[0].judge(name)


# --- the gate ------------------------------------------------------------------------------------


def judged(base: Path, tuned: Path, specs: Mapping[str, GateSpec], family: int) -> list[Verdict]:
    """Every limit, as `pytest --forgetguard` judges it."""
    roles = {"base": base, "tuned": tuned}
    pair = ModelPair({role: resolve(str(path), role) for role, path in roles.items()})
    session = GateSession(pair, list(specs.values()), family=family, keep=True)
    try:
        return [session.judge(spec, limit) for spec in specs.values() for limit in spec.limits]
    finally:
        session.close()


def told(verdict: Verdict) -> Data:
    """What the tables need of a verdict; `value`: the estimate with its interval, of the part that
    decided (`subject`) in a limit on each part."""
    estimate = verdict.estimate
    return {
        "circuit": verdict.circuit,
        "limit": verdict.limit,
        "outcome": verdict.outcome.value,
        "code": verdict.code.value,
        "value": None if estimate is None else [estimate.value, estimate.low, estimate.high],
        "subject": verdict.subject,
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


def other_prompts(model: Path, spec: GateSpec, seed: int = OTHER_SEED) -> EncodedCapability:
    """Pairs of the same task that the gate does not see."""
    from transformers import AutoTokenizer

    source: Any = spec.pairs
    return Capability(
        spec.capability, spec.readout, task=source.task, count=OTHER_PAIRS, seed=seed
    ).encoded(AutoTokenizer.from_pretrained(model))


def plain(
    model: Path, prompts: Mapping[str, EncodedCapability], base: Path | None = None
) -> dict[str, Data]:
    """What `behaviour` finds of a checkpoint, an adapter's on `base`."""
    if not (model / "adapter_config.json").exists():
        return behaviour(plainly_loaded(model), prompts)
    from peft import PeftModel

    return behaviour(PeftModel.from_pretrained(plainly_loaded(base or model), str(model)), prompts)


def plainly_loaded(model: Path) -> Any:
    """By transformers alone, float32."""
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(model), dtype=torch.float32)
    return loaded.to(device)


def behaviour(loaded: Any, prompts: Mapping[str, EncodedCapability]) -> dict[str, Data]:
    """By capability: the mean difference of the two answers' logits, and the share of pairs with
    the answer above the distractor, one prompt at a time."""
    found = {}
    for name, capability in prompts.items():
        margins = []
        for one in capability.encoded.pairs:
            with torch.no_grad():
                logits = loaded(torch.tensor([one.clean], device=loaded.device)).logits[0, -1]
            margins.append(float(logits[one.answer[0]] - logits[one.distractor[0]]))
        values = np.array(margins)
        found[name] = {"margin": float(values.mean()), "right": float((values > 0).mean())}
    return found
