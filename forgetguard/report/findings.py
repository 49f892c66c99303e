"""What is not kept, at its line of the gate file, in the forms that code hosts show: annotations of
GitHub, code quality of GitLab."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.report import page, terminal

MOST = 10  # annotations of one kind that GitHub shows of a step


@dataclass(frozen=True, slots=True)
class Finding:
    """One circuit's first limit that is not kept. file: relative to the repository; "": it lies
    elsewhere."""

    gate: page.Gate
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
        line = 1 if verdict is None else max(1, verdict.line or 1)
        found[gate.key] = Finding(gate, _within(given or "", root), line)
    return list(found.values())


def _within(file: str, root: Path) -> str:
    path = Path(file).resolve()
    return path.relative_to(root).as_posix() if file and path.is_relative_to(root) else ""


def commands(found: Sequence[Finding]) -> list[str]:
    """Workflow commands of GitHub, a line each; of many the first."""
    return [_annotation(one) for one in found[:MOST]]


def _annotation(one: Finding) -> str:
    gate = one.gate
    label = terminal.LABELS[gate.outcome]
    properties = {"title": f"forgetguard {label}: {gate.circuit} {gate.limit}"}
    if one.file:
        properties = {"file": one.file, "line": str(one.line), **properties}
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    command = "warning" if gate.outcome == "abstain" else "error"
    return f"::{command} {given}::{_data(gate.reason)}"


def _data(text: str) -> str:
    # What GitHub's toolkit escapes in commands (packages/core/src/command.ts).
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def code_quality(found: Sequence[Finding]) -> str:
    """GitLab's code quality report (a subset of Code Climate's). What lies outside the repository
    stands under its circuit's name, for GitLab shows nothing without a path."""
    return json.dumps(list(map(_quality, found)), indent=1) + "\n"


def _quality(one: Finding) -> dict[str, Any]:
    gate = one.gate
    name = "\x1f".join((one.file, gate.circuit, gate.limit))
    return {
        "description": f"{gate.circuit} {gate.limit}: {gate.reason}",
        "check_name": f"forgetguard.{gate.limit}",
        "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
        "severity": "minor" if gate.outcome == "abstain" else "critical",
        "location": {
            "path": one.file or f"{gate.circuit}.circuit.yaml",
            "lines": {"begin": one.line},
        },
    }
