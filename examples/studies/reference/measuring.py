"""One checkpoint, measured: what it learned, what it kept, and how far it went from its base."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel

from examples.studies.reference.plan import Plan, circuit_path, circuit_specs, described
from examples.studies.reference.prompts import prior_capabilities, scoring_questions
from examples.studies.reference.training import checkpoints, finished
from forgetguard.anatomy.locate import locate
from forgetguard.api.checkpoints import load
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.discovery.ranking import Progress
from forgetguard.gate import studentised
from forgetguard.gate.declaration import FilePairs, GateSpec, TaskPairs
from forgetguard.gate.resampling import cluster_codes
from forgetguard.gate.session import GateSession
from forgetguard.measures.behaviour import behaviour
from forgetguard.measures.divergence import (
    Passage,
    Predictions,
    passage,
    passages_of,
    predict,
    token_divergence,
)
from forgetguard.measures.parameter_drift import relative_drift
from forgetguard.measures.samples import CIRCUIT, DAMAGE, IMPORTANCE, Samples
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.reward import reward
from forgetguard.whole_files import write_text

BASE = "base"
VERSION = 3  # of what is measured and how; a higher one measures everything anew
_ROWS = 64  # prompts generated from at once


def task_name(run: str, step: int) -> str:
    """A checkpoint's name among the tasks, such as `sft-0.001-seed0@120`."""
    return f"{run}@{step}"


def measure(plan: Plan, name: str, progress: Progress) -> None:
    """Measure the checkpoint `RUN@STEP` (or `base@0`) and write its file, whole or not at all; one
    that is there for this very checkpoint and these prompts is left alone.

    Raises:
        ForgetguardError: it cannot be measured; the message says why.
    """
    key = key_of(plan, name)
    if _known(plan, name) == key:
        return
    found = _measured(plan, None if name == task_name(BASE, 0) else checkpoint(plan, name))
    file = record_file(plan, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"key": key, **found}, indent=1) + "\n")


def record_file(plan: Plan, name: str) -> Path:
    """Where a checkpoint's numbers are."""
    run, _, step = name.rpartition("@")
    return plan.out / "measures" / run / f"step-{int(step):06d}.json"


def checkpoint(plan: Plan, name: str) -> Path:
    """The folder of the checkpoint `RUN@STEP` (raises KeyError)."""
    run, _, step = name.rpartition("@")
    return checkpoints(plan.run(run))[int(step)]


def key_of(plan: Plan, name: str) -> str:
    """A hash of all that the numbers depend on: weights, base, prompts, circuits and `VERSION`."""
    own = plan.base if name == task_name(BASE, 0) else str(checkpoint(plan, name))
    shown = described(plan)
    content = {
        "version": VERSION,
        "weights": [_weights(given) for given in (plan.base, own)],
        "loading": asdict(plan.loading),
        "plan": {part: shown[part] for part in ("data", "prior", "circuits")},
        "circuits": [circuit_path(one).read_text("utf-8") for one in plan.circuits.names],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def measured(plan: Plan, name: str) -> bool:
    """Whether a checkpoint's file is there and belongs to it."""
    return _known(plan, name) == key_of(plan, name)


def there(plan: Plan) -> list[str]:
    """What there is to measure: the base, and the checkpoints of all finished runs."""
    names = [task_name(BASE, 0)]
    for run in plan.runs:
        if finished(run):
            names += [task_name(run.name, step) for step in checkpoints(run)]
    return names


def _weights(given: str) -> str:
    directory = localise(resolve(given, "tuned")).directory
    files = [(file.name, file.stat()) for file in directory.iterdir()]
    return _hashed(given, frozenset((name, one.st_size, one.st_mtime_ns) for name, one in files))


@cache
def _hashed(given: str, _: frozenset[tuple[str, int, int]]) -> str:
    """Every byte is read once a process: the base belongs to every checkpoint's key."""
    return fingerprint(localise(resolve(given, "tuned"))).weights


def _known(plan: Plan, name: str) -> str | None:
    try:
        return str(json.loads(record_file(plan, name).read_text("utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measured(plan: Plan, folder: Path | None) -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": plan.loading.dtype, "device": plan.loading.device}
    with load(plan.base, folder, **options) as pair:
        own = pair.base if folder is None else pair.tuned
        prior = [one.encoded(own.tokenizer) for one in prior_capabilities(plan)]
        sets = {"new": _new_passages(plan, own.tokenizer), "prior": _prior_passages(prior)}
        if folder is not None:
            with pair.base.open() as model:
                kept = {name: predict(locate(model), one) for name, one in sets.items()}
        with own.open() as model:
            found = _learned(plan, model, own.tokenizer)
            theirs = {name: predict(locate(model), one) for name, one in sets.items()}
            found["prior"] = _prior(model, prior, theirs["prior"])
        if folder is not None:
            found["kl"] = {name: _divergence(kept[name], theirs[name]) for name in sets}
            found["dcv"] = _vulnerability(plan, pair)
            found["drift"] = relative_drift(pair.base.spec, pair.tuned.spec)
    return found


# --- behaviour -------------------------------------------------------------------------------


def _learned(plan: Plan, model: PreTrainedModel, tokenizer: Any) -> dict[str, Any]:
    validation, evaluation = scoring_questions(plan.data)
    length = plan.data.completion_length
    return {
        "new": {
            "validation": _score(model, tokenizer, validation, length),
            "evaluation": _score(model, tokenizer, evaluation, length),
            "probability": _probability(model, tokenizer, evaluation),
        }
    }


def _prior(
    model: PreTrainedModel, prior: Sequence[EncodedCapability], found: Predictions
) -> dict[str, dict[str, float]]:
    """By task: accuracy, mean logit difference, mean geometric-mean probability of the answer."""
    anatomy = locate(model)
    likely = iter(_probabilities(found))
    result = {}
    for one in prior:
        read = behaviour(anatomy, one)
        result[one.capability.name] = {
            "accuracy": float(read.top1.mean()),  # of all tokens, as the papers count
            "readout": float(read.readout.mean()),
            "probability": math.fsum(islice(likely, one.n_pairs)) / one.n_pairs,
        }
    return result


def _probabilities(found: Predictions) -> list[float]:
    """Of each passage's completion, the geometric mean over its tokens."""
    values, start = [], 0
    for one in found.passages:
        end = start + len(one.targets)
        rows = found.logits[start:end].double().log_softmax(-1)
        values.append(float(rows.gather(1, torch.tensor(one.targets)[:, None]).mean().exp()))
        start = end
    return values


def _score(
    model: PreTrainedModel, tokenizer: Any, questions: Sequence[Question], length: int
) -> float:
    """Mean reward of greedy answers."""
    answers = _answers(model, tokenizer, [one.prompt for one in questions], length)
    return float(
        np.mean([reward(one, answer) for one, answer in zip(questions, answers, strict=True)])
    )


def _answers(
    model: PreTrainedModel, tokenizer: Any, prompts: Sequence[str], length: int
) -> list[str]:
    """Greedy completions; prompts of one length share a batch, so that nothing is padded."""
    end = tokenizer.eos_token_id
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    config = GenerationConfig(
        do_sample=False, max_new_tokens=length, eos_token_id=end, pad_token_id=padding
    )
    ids = tokenizer(list(prompts))["input_ids"]
    found = [""] * len(prompts)
    ordered = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for size, same in groupby(ordered, key=lambda row: len(ids[row])):
        rows = list(same)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            batch = torch.tensor([ids[row] for row in part], device=model.device)
            with torch.inference_mode():
                made = model.generate(  # type: ignore[operator]
                    input_ids=batch,
                    attention_mask=torch.ones_like(batch),
                    generation_config=config,
                )
            said = tokenizer.batch_decode(made[:, size:], skip_special_tokens=True)
            for row, text in zip(part, said, strict=True):
                found[row] = text
    return found


def _probability(
    model: PreTrainedModel, tokenizer: Any, questions: Sequence[Question]
) -> float | None:
    """Mean probability of a right answer's first and only token, summed over the right answers;
    None where one takes several tokens."""
    answers = [_answer_ids(tokenizer, one) for one in questions]
    if any(one is None for one in answers):
        return None
    passages = [passage(tokenizer(one.prompt)["input_ids"]) for one in questions]
    likely = torch.softmax(predict(locate(model), passages).logits.double(), dim=-1)
    found = [float(row[ids].sum()) for row, ids in zip(likely, answers, strict=True)]
    return math.fsum(found) / len(found)


def _answer_ids(tokenizer: Any, question: Question) -> list[int] | None:
    """The ids of the right answers in place, each one token, else None."""
    prompt = tokenizer(question.prompt)["input_ids"]
    ids = []
    for answer in sorted(question.valid):
        whole = tokenizer(f"{question.prompt} {answer}")["input_ids"]
        if whole[: len(prompt)] != prompt or len(whole) != len(prompt) + 1:
            return None
        ids.append(whole[-1])
    return ids


# --- divergence ------------------------------------------------------------------------------


def _new_passages(plan: Plan, tokenizer: Any) -> tuple[Passage, ...]:
    """New-task prompts with their labels."""
    new = []
    for question in scoring_questions(plan.data)[1]:
        prompt = tokenizer(question.prompt)["input_ids"]
        whole = tokenizer(question.prompt + question.answer)["input_ids"]
        label = whole[len(prompt) :] if whole[: len(prompt)] == prompt else []
        new.append(passage(prompt, label))
    return tuple(new)


def _prior_passages(prior: Sequence[EncodedCapability]) -> tuple[Passage, ...]:
    """Prior prompts with their answers, capability by capability."""
    return tuple(one for capability in prior for one in passages_of(capability))


def _divergence(base: Predictions, tuned: Predictions) -> dict[str, float]:
    """Mean KL, exact over the ids that both have, in nats: over a passage's tokens, then over
    passages."""
    shared = min(base.logits.shape[-1], tuned.logits.shape[-1])
    both = token_divergence(base.logits[:, :shared], tuned.logits[:, :shared])
    sizes = [len(one.positions) for one in base.passages]
    means = [float(torch.stack([part.mean() for part in kl.split(sizes)]).mean()) for kl in both]
    return dict(zip(("forward", "reverse"), means, strict=True))


# --- circuits --------------------------------------------------------------------------------


def _vulnerability(plan: Plan, pair: ModelPair) -> dict[str, Any]:
    """By capability: DCV of the whole circuit with its interval over pairs, and of its heads."""
    specs = [_fewer(one, plan.circuits.pairs) for one in circuit_specs(plan.circuits.names)]
    session = GateSession(pair, specs)
    return {spec.capability: _numbers(spec, session.measurement(spec)) for spec in specs}


def _fewer(spec: GateSpec, pairs: int) -> GateSpec:
    given = spec.pairs
    if isinstance(given, (FilePairs, TaskPairs)):
        count = pairs if given.count is None else min(given.count, pairs)
        return replace(spec, pairs=replace(given, count=count))
    return spec


def _numbers(spec: GateSpec, found: Samples) -> dict[str, Any]:
    damage, importance = found.get(DAMAGE, CIRCUIT), found.get(IMPORTANCE, CIRCUIT, BASE)
    if damage is None or importance is None:
        return {"value": None, "low": None, "high": None, "heads": {}}
    clusters = cluster_codes([unit.template for unit in found.units])
    whole = studentised.ratio(
        damage,
        importance,
        confidence=spec.confidence,
        clusters=clusters,
    )
    return {
        "value": whole.value,
        # A bound is infinite where the importance cannot be told from 0; JSON has no word for it.
        "low": whole.low if math.isfinite(whole.low) else None,
        "high": whole.high if math.isfinite(whole.high) else None,
        "heads": _heads(spec, found, clusters),
    }


def _heads(spec: GateSpec, found: Samples, clusters: Any) -> Mapping[str, float | None]:
    """DCV by head; None where the head's importance cannot be told from zero."""
    names = [str(member) for member in spec.members]
    importance = np.array([found.need(IMPORTANCE, name, BASE) for name in names])
    worth = studentised.means(importance, clusters=clusters)
    return {
        name: float(found.need(DAMAGE, name).mean() / values.mean())
        if studentised.measurable(one)
        else None
        for name, values, one in zip(names, importance, worth, strict=True)
    }
