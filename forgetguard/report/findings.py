"""What is not kept, at its line of the gate file, in the forms that code hosts show: annotations of
GitHub, code quality of GitLab."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetguard.report import page, terminal

MOST = 10  # annotations of one kind that GitHub shows of a step


@dataclass(frozen=True, slots=True)
class Finding:
    """One circuit's first limit that is not kept. file: relative to the repository; "": it lies
    elsewhere."""

    outcome: str
    circuit: str
    limit: str
    message: str
    file: str
    line: int


def findings(run: page.Run, root: Path) -> list[Finding]:
    """One for each circuit of which a limit is not kept, failures first. `root`: the
    repository's folder."""
    found: dict[tuple[str, str], Finding] = {}
    for gate in run.gates:
        if gate.outcome not in page.BROKEN or gate.key in found:
            continue
        verdict = gate.verdict
        given = verdict.file if verdict is not None else gate.id.partition("::")[0]
        found[gate.key] = Finding(
            gate.outcome,
            gate.circuit,
            gate.limit,
            gate.reason,
            _within(given or "", root),
            max(1, (verdict.line or 1) if verdict is not None else 1),
        )
    return list(found.values())


def _within(file: str, root: Path) -> str:
    path = Path(file).resolve()
    return path.relative_to(root).as_posix() if file and path.is_relative_to(root) else ""


def commands(found: Sequence[Finding]) -> list[str]:
    """Workflow commands of GitHub, a line each; of many the first."""
    return [_annotation(one) for one in found[:MOST]]


def _annotation(one: Finding) -> str:
    label = terminal.LABELS[one.outcome]
    properties = {"title": f"forgetguard {label}: {one.circuit} {one.limit}"}
    if one.file:
        properties = {"file": one.file, "line": str(one.line), **properties}
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    command = "warning" if one.outcome == "abstain" else "error"
    return f"::{command} {given}::{_data(one.message)}"


def _data(text: str) -> str:
    # What GitHub's toolkit escapes in commands (packages/core/src/command.ts).
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def code_quality(found: Sequence[Finding]) -> str:
    """GitLab's code quality report (a subset of Code Climate's). What lies outside the repository
    stands under its circuit's name, for GitLab shows nothing without a path."""
    rows = [
        {
            "description": f"{one.circuit} {one.limit}: {one.message}",
            "check_name": f"forgetguard.{one.limit}",
            "fingerprint": _hash(one.file, one.circuit, one.limit),
            "severity": "minor" if one.outcome == "abstain" else "critical",
            "location": {
                "path": one.file or f"{one.circuit}.circuit.yaml",
                "lines": {"begin": one.line},
            },
        }
        for one in found
    ]
    return json.dumps(rows, indent=1) + "\n"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
