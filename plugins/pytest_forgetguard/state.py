"""What one gate run knows. It lives in the config's stash, under `RUN`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_forgetguard.backend import load_baseline
from pytest_forgetguard.failure import GateFailure, Recorded
from pytest_forgetguard.python_gates import Uses

if TYPE_CHECKING:
    from forgetguard.gate.declaration import GateSpec, Limit
    from forgetguard.gate.verdict import Verdict
    from pytest_forgetguard.backend import ModelBackend
    from pytest_forgetguard.measuring import Measurements
    from pytest_forgetguard.settings import Settings

# From best to worst: of several reports on one gate, and of several attempts, the worst counts.
# `ungated`: a Python gate that measured and asserted no limit (its own asserts held, if any);
# `not_had`: a limit of a bundled default on what the base cannot do, which judges nothing.
OUTCOMES = ("pass", "ungated", "not_had", "recorded", "skipped", "abstain", "fail", "error")


def worst(outcomes: Iterable[str]) -> str:
    """That which counts; a pass where there are none."""
    return max(outcomes, key=OUTCOMES.index, default="pass")


@dataclass(slots=True)
class Result:
    """What one gate (a limit of a circuit file, or a Python gate) came to. `attempts`: the outcome
    of each, in order, for other plugins may run a gate more than once."""

    outcome: str = "pass"  # one of OUTCOMES
    message: str = ""
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)

    @property
    def may_abstain(self) -> bool:
        """Whether it abstained, and never because an interval was too wide."""
        from forgetguard.gate.verdict import Code, not_judged

        return self.outcome == "abstain" and all(
            not_judged(Code(one["code"]), one["facts"])
            for one in self.verdicts
            if one["outcome"] == "abstain"
        )

    def add(self, other: Result, attempt: int = 0) -> None:
        """Merge what a report says of one attempt (counted from 0); the worst outcome stays."""
        if worst((self.outcome, other.outcome)) != self.outcome:
            self.outcome, self.message = other.outcome, other.message
        self.verdicts += [new for new in other.verdicts if new not in self.verdicts]
        self.attempts += ["pass"] * (attempt + 1 - len(self.attempts))
        self.attempts[attempt] = worst((self.attempts[attempt], other.outcome))


@dataclass(slots=True)
class Run:
    """One process's share of a gate run. Only the session's own process aggregates."""

    settings: Settings
    backend: ModelBackend
    measurements: Measurements
    worker: bool
    uses: Uses = field(default_factory=Uses)
    started: float = field(default_factory=time.time)
    ended: float | None = None
    exit_status: int | None = None  # once it is decided: pytest's own may be another
    notes: list[str] = field(default_factory=list)
    fingerprints: dict[str, dict[str, str]] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)
    circuits_from: str = "the paths given"
    left_out: dict[str, None] = field(default_factory=dict)  # bundled circuits beside the core set
    circuits: dict[Path, GateSpec] = field(default_factory=dict)
    circuit_files_seen: set[Path] = field(default_factory=set)
    collected: list[pytest.Item] = field(default_factory=list)  # gates, before deselection
    planned: dict[str, None] = field(default_factory=dict)  # node ids of selected gates, in order
    deselected: dict[str, None] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)  # circuits, by digest
    origins: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # by digest
    usage_errors: dict[str, None] = field(default_factory=dict)
    specification_errors: dict[str, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # why the run is no pass, beside verdicts
    selection: dict[str, Any] = field(default_factory=dict)  # how some gates were chosen
    baseline: dict[str, Any] = field(default_factory=dict)  # its entries at the start, plain
    unwritten: list[Path] = field(default_factory=list)  # results file or page
    recorded: str = ""  # what became of the baseline
    misnamed: str = ""  # files under the paths that look like gate files and are none by name

    def circuit(self, path: Path) -> GateSpec:
        """Read a circuit file, once. Raises SpecificationError."""
        path = path.resolve()
        if path not in self.circuits:
            self.circuits[path] = self.backend.circuit(path)
        return self.circuits[path]

    def judge(self, circuit: GateSpec, limit: Limit, *, own: int = 1) -> Verdict:
        """The verdict on one limit, `own` of which stand for one of the run's. Raises
        ForgetguardError; Recorded where this run records what the limit compares with."""
        if limit.over == "baseline" and self._records(circuit.name):
            self.measurements.measure(circuit)
            raise Recorded(circuit.name, limit.key)
        return self.measurements.judge(circuit, limit, own=own)

    def _records(self, circuit: str) -> bool:
        """Whether its limits over the baseline are recorded, not judged: in an update, and where it
        is about to be added."""
        if not self.settings.update_new_only:
            return self.settings.update
        baseline = load_baseline(self.settings)
        return baseline is None or circuit not in baseline.circuits

    def require_pass(self, circuit: GateSpec, *verdicts: Verdict, rerun: str | None = None) -> None:
        """Raises GateFailure: a verdict is no pass, and not one that abstains and may."""
        allowed = self.settings.allow_abstain
        unpassed = [one for one in verdicts if not (one or (allowed and one.not_judged))]
        if unpassed:
            failed = any(one.outcome.value == "fail" for one in unpassed)
            origin = self.measurements.origin(circuit) if self.settings.origin and failed else None
            raise GateFailure(*unpassed, rerun=rerun, origin=origin)

    @property
    def not_run(self) -> list[str]:
        """Selected gates that no report ever came from."""
        return [nodeid for nodeid in self.planned if nodeid not in self.results]

    @property
    def allowed_to_abstain(self) -> list[str]:
        """The gates that abstained where `--forgetguard-allow-abstain` lets them: on what cannot
        be judged."""
        if not self.settings.allow_abstain:
            return []
        return [nodeid for nodeid, result in self.in_order() if result.may_abstain]

    def gates(self, outcome: str) -> list[str]:
        """The gates that came to it."""
        return [nodeid for nodeid, result in self.in_order() if result.outcome == outcome]

    def in_order(self) -> list[tuple[str, Result]]:
        """The results in the order of collection, whichever worker was first."""
        places = {nodeid: place for place, nodeid in enumerate(self.planned)}
        last = len(places)
        return sorted(self.results.items(), key=lambda entry: places.get(entry[0], last))

    def add_circuit(self, entry: dict[str, Any]) -> None:
        """Keep what was measured of a circuit, once: of what several workers send, the most."""
        if "origin" in entry:
            self.origins[entry["digest"]] = entry["origin"]
            return
        known = self.measured.get(entry["digest"])
        if known is None or _extent(known) < _extent(entry):
            self.measured[entry["digest"]] = entry
        if known is not None and known["measured"] and entry["measured"]:
            # Each worker reads the exact numbers of the limits that it judges.
            one, other = known["measured"]["exact"], entry["measured"]["exact"]
            self.measured[entry["digest"]]["measured"]["exact"] = {
                name: {**one.get(name, {}), **other.get(name, {})} for name in {**one, **other}
            }

    def circuits_in_order(self) -> list[dict[str, Any]]:
        """What was measured, by circuit, whichever worker was first."""
        found = sorted(self.measured.values(), key=lambda entry: (entry["name"], entry["digest"]))
        origins = self.origins
        return [
            entry | ({"origin": origins[key]} if (key := entry["digest"]) in origins else {})
            for entry in found
        ]

    def add(self, nodeid: str, *attempts: Result) -> None:
        """Merge what a report says of the attempts at a gate into what is known of it."""
        known = self.results.setdefault(nodeid, Result())
        for number, attempt in enumerate(attempts):
            known.add(attempt, number)


RUN: pytest.StashKey[Run] = pytest.StashKey()


def _extent(entry: dict[str, Any]) -> tuple[int, int]:
    """On how many prompts a circuit was measured, and how many arrays: where a limit did not pass,
    every member alone; (-1, 0) where it was not."""
    measured = entry["measured"]
    if measured is None:
        return -1, 0
    by_role = [one for by_role in measured["arrays"].values() for one in by_role.values()]
    return len(measured["units"]), sum(map(len, by_role))
