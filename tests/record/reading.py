"""Reads a results file of the gate as plain numbers: the one place that knows its layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BY_HEAD = ("head_importance", "head_damage", "head_own_damage", "reference_head_damage")
_ARRAYS = (
    "base_readout",
    "tuned_readout",
    "base_correct",
    "tuned_correct",
    "circuit_importance",
    "circuit_damage",
    "all_importance",
    "all_damage",
    "reference_circuit_damage",
)
_RECORDED = ("tuned_readout", "tuned_correct", "circuit_damage", "all_damage")


def read_run(path: Path) -> dict[str, Any]:
    """What a run measured and decided, without its words.

    Returns:
        {circuit: {"heads": [...], "pairs": sha256, "dropped": count,
                   "arrays": {name or name/head: [n numbers, in the order of the pairs]},
                   "limits": {key: {"outcome", "bound", "estimate", "head", ...}}}}
    """
    results = json.loads(path.read_text("utf-8"))
    circuits = {one["name"]: _circuit(one) for one in results["circuits"]}
    for gate in results["results"]:
        for verdict in gate["verdicts"]:
            circuits[verdict["circuit"]]["limits"][verdict["limit"]] = _limit(verdict)
    return circuits


def _circuit(one: Mapping[str, Any]) -> dict[str, Any]:
    measured = one["measured"]
    texts = json.dumps(measured["pairs"]).encode()
    return {
        "heads": one["declared"]["heads"],
        "pairs": hashlib.sha256(texts).hexdigest(),  # texts, templates, and their order
        "dropped": measured["dropped"],
        "looks": measured.get("looks", []),
        "arrays": _arrays(measured),
        "limits": {},
    }


def _arrays(measured: Mapping[str, Any]) -> dict[str, list[Any]]:
    found = {name: measured[name] for name in _ARRAYS if name in measured}
    for name in _BY_HEAD:
        found |= {f"{name}/{head}": row for head, row in measured.get(name, {}).items()}
    for control in measured.get("controls", []):
        found[f"control/{control['name']}"] = control["damage"]
    accepted = measured.get("baseline", {})
    found |= {f"baseline/{name}": accepted[name] for name in _RECORDED if name in accepted}
    for head, row in accepted.get("head_damage", {}).items():
        found[f"baseline/head_damage/{head}"] = row
    return found


def _limit(verdict: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("outcome", "bound", "estimate", "head", "family", "detectable", "budget")
    return {
        **{name: verdict[name] for name in kept},
        "heads": {
            one["head"]: {name: one[name] for name in ("importance", "dcv", "own")}
            for one in verdict["worst_heads"]
        },
        "pairs": [[one["base"], one["patched"], one["tuned"]] for one in verdict["worst_pairs"]],
        "controls": {one["name"]: one["dcv"] for one in verdict["controls"]},
    }


def read_pairs(path: Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """Clean, counterfactual, answer and distractor of every pair of every circuit of a run, in the
    order of its arrays."""
    results = json.loads(path.read_text("utf-8"))
    return {
        one["name"]: [tuple(pair[:4]) for pair in one["measured"]["pairs"]]
        for one in results["circuits"]
    }
