"""The results file: verdicts as JSON, written whole or not at all, and read back."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from forgetguard.errors import SpecificationError
from forgetguard.gate.verdict import Estimate, HeadEvidence, Outcome, PairEvidence, Verdict

SCHEMA = "forgetguard.results"
SCHEMA_VERSION = 1
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


def check_target(path: Path) -> None:
    """Refuse a results file that cannot be written, before anything is measured.

    Raises:
        SpecificationError: the folder is missing or not writable, or `path` is no regular file.
    """
    folder = path.parent
    if not folder.is_dir():
        raise SpecificationError(
            f"cannot write the results file {path}: there is no folder {folder}; create it first"
        )
    if path.exists() and not path.is_file():
        raise SpecificationError(
            f"cannot write the results file {path}: it is not a regular file; name another path"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecificationError(
            f"cannot write the results file {path}: {folder} is not writable; name another path"
        )


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` with the schema's name and version in front, atomically: a reader sees the
    old file or the new one, never half of one.

    Raises:
        OSError: the file cannot be written; the old one, if any, is untouched.
    """
    content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **document}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OSError: it cannot be written; the old one, if any, is untouched.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        # A lone surrogate (an undecodable file name) becomes \\udcXX, which is JSON too.
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        Path(name).chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide it from CI's collector
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def read(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        SpecificationError: it is not there, is not JSON, or has another schema or version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecificationError(f"cannot read the results file {path}: {error}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if (schema, version) != (SCHEMA, SCHEMA_VERSION):
        raise SpecificationError(
            f"{path} is {schema!r} version {version!r}, not {SCHEMA!r} version {SCHEMA_VERSION}: "
            f"write it again with this version of forgetguard"
        )
    return dict(content)
