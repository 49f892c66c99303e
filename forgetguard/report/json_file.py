"""The results file: verdicts as JSON, written whole or not at all, and read back."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from forgetguard.errors import SpecificationError
from forgetguard.gate.seal import sealed
from forgetguard.gate.verdict import (
    ControlEvidence,
    Estimate,
    HeadEvidence,
    Outcome,
    PairEvidence,
    Verdict,
)
from forgetguard.whole_files import write_text

SCHEMA = "forgetguard.results"
SCHEMA_VERSION = 2
_RECORDED_VERSIONS = (
    "forgetguard",
    "torch",
    "transformers",
    "peft",
    "transformer-lens",
    "numpy",
    "scipy",
    "pytest",
)


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict in plain Python values, so that JSON and process boundaries take it.

    Numbers become exactly `float` or `int` (a numpy scalar would not cross into another process),
    and a number that JSON cannot write becomes "nan", "inf" or "-inf".
    """
    return {
        "circuit": verdict.circuit,
        "capability": verdict.capability,
        "limit": verdict.limit,
        "bound": _number(verdict.bound),
        "outcome": verdict.outcome.value,
        "head": verdict.head,
        "estimate": _estimate(verdict.estimate),
        "reason": verdict.reason,
        "worst_heads": [
            {
                "head": head.head,
                "importance": _estimate(head.importance),
                "dcv": _estimate(head.dcv),
                "note": head.note,
                "own": _estimate(head.own),
            }
            for head in verdict.worst_heads
        ],
        "worst_pairs": [
            {
                "clean": pair.clean,
                "counterfactual": pair.counterfactual,
                "answer": pair.answer,
                "distractor": pair.distractor,
                "base": _number(pair.base),
                "patched": _number(pair.patched),
                "tuned": _number(pair.tuned),
            }
            for pair in verdict.worst_pairs
        ],
        "file": str(verdict.file),
        "line": int(verdict.line),
        "notes": [str(note) for note in verdict.notes],
        "family": int(verdict.family),
        "detectable": None if verdict.detectable is None else _number(verdict.detectable),
        "budget": None if verdict.budget is None else int(verdict.budget),
        "controls": [
            {
                "name": control.name,
                "members": [str(member) for member in control.members],
                "dcv": _estimate(control.dcv),
                "note": control.note,
            }
            for control in verdict.controls
        ],
    }


def verdict_from_dict(data: Mapping[str, Any]) -> Verdict:
    """The inverse of `verdict_to_dict`.

    Raises:
        SpecificationError: `data` lacks a field or holds a value that no verdict has.
    """
    try:
        return Verdict(
            circuit=data["circuit"],
            capability=data["capability"],
            limit=data["limit"],
            bound=float(data["bound"]),
            outcome=Outcome(data["outcome"]),
            estimate=_to_estimate(data["estimate"]),
            reason=data["reason"],
            worst_heads=tuple(_to_head(head) for head in data["worst_heads"]),
            worst_pairs=tuple(_to_pair(pair) for pair in data["worst_pairs"]),
            file=data["file"],
            line=data["line"],
            notes=tuple(data["notes"]),
            head=data["head"],
            family=int(data["family"]),
            detectable=None if data["detectable"] is None else float(data["detectable"]),
            budget=None if data["budget"] is None else int(data["budget"]),
            controls=tuple(_to_control(control) for control in data["controls"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SpecificationError(
            f"not a verdict as {SCHEMA} version {SCHEMA_VERSION} writes it ({error!r}): "
            f"was the results file edited by hand or written by another version?"
        ) from error


def _number(value: float) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "value": _number(estimate.value),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
        "confidence": _number(estimate.confidence),
        "n": int(estimate.n),
    }


def _to_estimate(data: Mapping[str, Any] | None) -> Estimate | None:
    if data is None:
        return None
    return Estimate(
        value=float(data["value"]),
        low=float(data["low"]),
        high=float(data["high"]),
        confidence=float(data["confidence"]),
        n=int(data["n"]),
    )


def _to_head(data: Mapping[str, Any]) -> HeadEvidence:
    importance = _to_estimate(data["importance"])
    if importance is None:
        raise ValueError(f"head {data['head']} has no importance")
    dcv, own = _to_estimate(data["dcv"]), _to_estimate(data["own"])
    return HeadEvidence(data["head"], importance, dcv, data["note"], own)


def _to_control(data: Mapping[str, Any]) -> ControlEvidence:
    return ControlEvidence(
        data["name"], tuple(data["members"]), _to_estimate(data["dcv"]), data["note"]
    )


def _to_pair(data: Mapping[str, Any]) -> PairEvidence:
    return PairEvidence(
        clean=data["clean"],
        counterfactual=data["counterfactual"],
        answer=data["answer"],
        distractor=data["distractor"],
        base=float(data["base"]),
        patched=float(data["patched"]),
        tuned=float(data["tuned"]),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the installed distributions that can change a number, found
    without importing them."""
    found = {"python": platform.python_version()}
    for name in _RECORDED_VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_target(path: Path, what: str = "the results file") -> None:
    """Refuse a file that cannot be written, before anything is measured.

    Raises:
        SpecificationError: the folder is missing or not writable, or `path` is no regular file.
    """
    folder = path.parent
    if not folder.is_dir():
        raise SpecificationError(
            f"cannot write {what} {path}: there is no folder {folder}; create it first"
        )
    if path.exists() and not path.is_file():
        raise SpecificationError(
            f"cannot write {what} {path}: it is not a regular file; name another path"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecificationError(
            f"cannot write {what} {path}: {folder} is not writable; name another path"
        )


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` with the schema's name and version in front and a checksum at the end,
    atomically: a reader sees the old file or the new one, never half of one.

    Raises:
        OSError: the file cannot be written; the old one, if any, is untouched.
    """
    content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **document}
    write_text(path, text_of(sealed(content)) + "\n")


def text_of(value: Any, indent: int = 0) -> str:
    """JSON, two spaces a level, with lists of plain values on one line each: measurements would
    otherwise fill a line with every number."""
    inner = " " * (indent + 2)
    if isinstance(value, Mapping) and value:
        entries = [
            f"{inner}{_scalar(str(key))}: {text_of(one, indent + 2)}" for key, one in value.items()
        ]
        return "{\n" + ",\n".join(entries) + "\n" + " " * indent + "}"
    if isinstance(value, (list, tuple)) and any(isinstance(one, (Mapping, list)) for one in value):
        entries = [f"{inner}{text_of(one, indent + 2)}" for one in value]
        return "[\n" + ",\n".join(entries) + "\n" + " " * indent + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        SpecificationError: it is not there, is not JSON, or has another schema or version.
    """
    return read_document(path, SCHEMA, SCHEMA_VERSION, "the results file")


def read_document(path: Path, schema: str, version: int, what: str) -> dict[str, Any]:
    """Read a JSON document of one schema and version; `what` names it in messages.

    Raises:
        SpecificationError: it is not there, is not JSON, or has another schema or version.
    """
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
        )
    except OSError as error:
        raise SpecificationError(
            f"cannot read {what} {path}: {error.strerror or error}; check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SpecificationError(f"cannot read {what} {path}: {error}") from error
    found = content if isinstance(content, dict) else {}
    theirs = found.get("schema"), found.get("schema_version")
    if not str(theirs[0]).startswith("forgetguard."):
        raise SpecificationError(f"{path} is no {what} of forgetguard: give another file")
    if theirs != (schema, version):
        step = "give another file" if theirs[0] != schema else "write it again with this version"
        raise SpecificationError(
            f"{path} is {theirs[0]!r} version {theirs[1]!r}, not {schema!r} version {version}: "
            f"{step}"
        )
    return found


def _unique(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two entries with one name readers take one or the other: then a file says two things.
    found = dict(entries)
    if len(found) != len(entries):
        names = [name for name, _ in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{', '.join(twice)} given twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
