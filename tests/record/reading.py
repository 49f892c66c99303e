"""Reads a results file of the gate as plain numbers: the one place that knows its layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the record calls an array: its quantity, role and subject in a results file.
_ARRAYS = {
    "base_readout": ("readout", "base", ""),
    "tuned_readout": ("readout", "tuned", ""),
    "base_correct": ("correct", "base", ""),
    "tuned_correct": ("correct", "tuned", ""),
    "circuit_importance": ("importance", "base", "circuit"),
    "circuit_damage": ("damage", "tuned", "circuit"),
    "all_importance": ("importance", "base", "all"),
    "all_damage": ("damage", "tuned", "all"),
    "reference_circuit_damage": ("damage", "reference", "circuit"),
    "baseline/tuned_readout": ("readout", "baseline", ""),
    "baseline/tuned_correct": ("correct", "baseline", ""),
    "baseline/circuit_damage": ("damage", "baseline", "circuit"),
    "baseline/all_damage": ("damage", "baseline", "all"),
}
_BY_HEAD = {
    "head_importance": ("importance", "base"),
    "head_damage": ("damage", "tuned"),
    "head_own_damage": ("own_damage", "tuned"),
    "reference_head_damage": ("damage", "reference"),
    "baseline/head_damage": ("damage", "baseline"),
}


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
    texts = json.dumps(measured["units"]).encode()
    heads = one["declared"]["members"]
    return {
        "heads": heads,
        "pairs": hashlib.sha256(texts).hexdigest(),  # texts, templates, and their order
        "dropped": measured["dropped"],
        "looks": measured["stages"],
        "arrays": _arrays(measured, heads),
        "limits": {},
    }


def _arrays(measured: Mapping[str, Any], heads: Sequence[str]) -> dict[str, list[Any] | None]:
    there = measured["arrays"]

    def get(quantity: str, role: str, subject: str) -> list[Any] | None:
        values = there.get(quantity, {}).get(role, {}).get(subject)
        if quantity == "correct" and values is not None:
            return [value != 0 for value in values]
        return values

    found = {name: get(*where) for name, where in _ARRAYS.items()}
    for name, where in _BY_HEAD.items():
        found |= {f"{name}/{head}": get(*where, head) for head in heads}
    found = {name: values for name, values in found.items() if values is not None}
    for control in measured["controls"]:
        found[f"control/{control['name']}"] = get("damage", "tuned", f"control {control['name']}")
    return found


def _limit(verdict: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("outcome", "bound", "family", "detectable", "budget")
    return {
        **{name: verdict[name] for name in kept},
        "estimate": _estimate(verdict["estimate"]),
        "head": verdict["subject"],
        "heads": {
            one["subject"]: {
                "importance": _estimate(one["scale"]),
                "dcv": _estimate(one["value"]),
                "own": _estimate(one["own"]),
            }
            for one in verdict["subjects"]
        },
        "pairs": [[one["base"], one["patched"], one["tuned"]] for one in verdict["units"]],
        "controls": {one["name"]: _estimate(one["dcv"]) for one in verdict["controls"]},
    }


def _estimate(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    names = {"coverage": "confidence"}
    return {names.get(name, name): value for name, value in given.items()}


def read_pairs(path: Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """Clean, counterfactual, answer and distractor of every pair of every circuit of a run, in the
    order of its arrays."""
    results = json.loads(path.read_text("utf-8"))
    return {
        one["name"]: [tuple(pair[:4]) for pair in one["measured"]["units"]]
        for one in results["circuits"]
    }
