"""SFT against RL by learned masks, at matched score: retention, C_vuln and faithfulness, a seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from examples.studies.reference.collecting import Record, Table
from examples.studies.reference.plan import Plan, masked
from forgetguard.discovery.ranking import Progress

VERSION = 2  # of what is compared and how; a higher one compares everything anew


def pairings(plan: Plan, found: Table) -> dict[str, dict[str, Any]]:
    """What is to be compared, by name: for each pair of groups, seed and task the two matched
    checkpoints."""
    result = {}
    for pair in masked(plan):
        sft, rl = (found["matched"].get(group, {}) for group in pair)
        for seed in sorted(sft.keys() & rl.keys(), key=int):
            if sft[seed] is None or rl[seed] is None:
                continue
            for task in plan.masks.tasks:
                result[f"{task}, {' vs '.join(pair)}, seed {seed}"] = {
                    "task": task,
                    "pair": list(pair),
                    "seed": int(seed),
                    "tuned": sft[seed],
                    "reference": rl[seed],
                }
    return result


def compare(shared: tuple[Plan, Mapping[str, Mapping[str, Any]]], name: str, _: Progress) -> None:
    """Compare one pairing and write its file; one that is there is left alone.

    Raises:
        ForgetguardError: it cannot be compared; the message says why.
    """
    from examples.studies.comparison.compare import compare as compare_models
    from examples.studies.reference.measuring import checkpoint, task_name
    from examples.studies.reference.prompts import mask_capabilities
    from forgetguard.api.checkpoints import load
    from forgetguard.whole_files import write_text

    plan, wanted = shared
    pairing = wanted[name]
    if read(plan, name, pairing) is not None:
        return
    at = {
        role: checkpoint(plan, task_name(pairing[role]["run"], pairing[role]["step"]))
        for role in ("tuned", "reference")
    }
    (capability,) = [one for one in mask_capabilities(plan) if one.name == pairing["task"]]
    with load(
        plan.base,
        at["tuned"],
        at["reference"],
        dtype=plan.loading.dtype,
        device=plan.loading.device,
    ) as pair:
        found = compare_models(pair, capability, seeds=plan.masks.seeds)
    file = _file(plan, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"key": _key(plan, pairing), **pairing, **slim(found.to_dict())}
    write_text(file, json.dumps(content, indent=1) + "\n")


def read(plan: Plan, name: str, pairing: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was found for this very pairing, None where it is not there."""
    try:
        found: dict[str, Any] = json.loads(_file(plan, name).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.pop("key", None) == _key(plan, pairing) else None


def slim(comparison: Record) -> dict[str, Any]:
    """Of a comparison, in plain values, what the page shows: no mask is kept."""
    return {
        "heads": comparison["heads"],
        "ceiling": _agreement(comparison["ceiling"]),
        "columns": {one["role"]: _column(one) for one in comparison["columns"]},
        "vulnerable": _vulnerable(comparison["vulnerable"]),
    }


def _column(one: Record) -> dict[str, Any]:
    retention = one["retention"]
    return {
        "able": one["able"],
        "sizes": one["sizes"],
        "stability": _agreement(one["stability"]),
        "faithfulness": _middle(one["faithfulness"]),
        "transfer": _middle(one["transfer"]),
        "paper_faithfulness": _middle(one["paper_faithfulness"]),
        "retention": None
        if retention is None
        else {
            **(_agreement(retention["retained"]) or {}),
            "across": _middle((retention["across"] or {}).get("corrected")),
            "relative": retention["relative"],
            "abstained": retention["abstained"],
        },
    }


def _agreement(one: Record | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "value": one["value"]["mean"],
        "chance": one["chance"],
        "corrected": _middle(one["corrected"]),
    }


def _middle(one: Record | None) -> float | None:
    return None if one is None else one["mean"]


def _vulnerable(one: Record | None) -> dict[str, Any] | None:
    return None if one is None else {"members": one["members"], "delta": one["delta"]}


def _file(plan: Plan, name: str) -> Any:
    return plan.out / "comparisons" / f"{name.replace(', ', '-').replace(' ', '')}.json"


def _key(plan: Plan, pairing: Mapping[str, Any]) -> str:
    """Of what the numbers depend on: the checkpoints' own keys, the masks' settings, and how they
    are compared."""
    from dataclasses import asdict

    from examples.studies.reference.measuring import key_of, task_name

    keys = [
        key_of(plan, task_name(pairing[role]["run"], pairing[role]["step"]))
        for role in ("tuned", "reference")
    ]
    content = {
        "version": VERSION,
        "keys": keys,
        "task": pairing["task"],
        "masks": asdict(plan.masks),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
