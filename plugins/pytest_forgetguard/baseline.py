"""The baseline of a run: read at its start, held against what was run, and recorded at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from forgetguard.errors import SpecificationError
from pytest_forgetguard.arguments import FLAG
from pytest_forgetguard.backend import load_baseline
from pytest_forgetguard.keys import SUFFIXES

if TYPE_CHECKING:
    from forgetguard.gate.declaration import GateSpec
    from pytest_forgetguard.state import Run


def begin(run: Run) -> None:
    """Refuse, before anything is measured, a baseline that cannot be read or written.

    Raises:
        SpecificationError: it cannot.
    """
    from forgetguard.report import baseline_file
    from forgetguard.report.json_file import check_target

    path = run.settings.baseline
    if path is None:
        return
    if run.settings.recording:
        check_target(path, "the baseline")
    if not run.settings.recording or path.exists():
        run.baseline = baseline_file.read_plain(path)
        load_baseline(run.settings)


def check_selection(run: Run, circuits: Sequence[GateSpec]) -> None:
    """Before anything is measured: every selected circuit is in the baseline, or will be, and an
    update leaves none out.

    Raises:
        SpecificationError: otherwise.
    """
    from forgetguard.gate.baseline import missing_message

    settings = run.settings
    if settings.update and run.deselected:
        raise SpecificationError(
            f"{FLAG}-update records the whole baseline anew, and {len(run.deselected)} gates are "
            f"deselected: run all of them, or add what is missing with {FLAG}-update-new-only"
        )
    if settings.baseline is None or settings.recording:
        return
    baseline = load_baseline(settings)
    known = {} if baseline is None else baseline.circuits
    lacking = [
        f"{spec.where(1)}: {missing_message(settings.baseline, spec.name, sorted(known))}"
        for spec in circuits
        if spec.name not in known
    ]
    if lacking:
        raise SpecificationError("\n".join(lacking))


# --- at the end ------------------------------------------------------------------------------


def missing(run: Run) -> list[str]:
    """Recorded circuits and limits that this run did not have: renamed or removed, for all that is
    known. Those that were deselected are there, and not missed; nor is anything where the run was
    told by node id, or by --lf, which gates it is about."""
    collected = run.planned or run.deselected
    if run.settings.baseline is None or run.selection.get("by_name") or not collected:
        return []
    had = _had(run)
    found = []
    for name, entry in sorted(run.baseline.items()):
        limits: Mapping[str, str] = entry.get("limits", {})
        lost = [
            key for key, gate in limits.items()
            if (name, key) not in had and gate not in run.deselected
        ]  # fmt: skip
        if not lost or (run.settings.update and name in {circuit for circuit, _ in had}):
            continue
        what = "circuit " + name if len(lost) == len(limits) else f"{name} {', '.join(lost)}"
        found.append(
            f"the baseline {run.settings.baseline} holds {what}, which this run does not have "
            "(renamed or removed?)"
        )
    return found


def _had(run: Run) -> set[tuple[str, str]]:
    """(circuit, limit) of every gate of this run, the deselected too."""
    gates = (*run.results, *run.planned, *run.deselected)
    return {judged for gate in gates for judged in _judged(run, gate)}


def _judged(run: Run, gate: str) -> Iterator[tuple[str, str]]:
    """(circuit, limit) of all that a gate is about."""
    result = run.results.get(gate)
    for verdict in result.verdicts if result else ():
        yield verdict["circuit"], verdict["limit"]
    file, _, names = gate.partition("::")
    if file.endswith(SUFFIXES):
        circuit, _, limit = names.partition("::")
        yield circuit, limit


def record(run: Run, exit_status: int) -> tuple[str, pytest.ExitCode]:
    """Write the baseline, where this run was to record one and measured all of it; returns what
    went wrong, if anything did, and the exit status that it deserves. What was written is told in
    `run.recorded`."""
    from forgetguard.report import baseline_file

    path, settings = run.settings.baseline, run.settings
    if path is None or not settings.recording:
        return "", pytest.ExitCode.OK
    unwritten = f"the baseline {path} was not written: "
    why = _incomplete(run, exit_status)
    if why:
        return unwritten + why, pytest.ExitCode.TESTS_FAILED
    fresh = _entries(run)
    kept = run.baseline if settings.update_new_only else {}
    added = {name: entry for name, entry in fresh.items() if name not in kept}
    if not added:
        run.recorded = f"nothing to add to the baseline {path}: it holds every circuit of this run"
        return "", pytest.ExitCode.OK
    try:
        baseline_file.write(path, {**kept, **added})
    except OSError as error:
        return f"{unwritten}{error.strerror or error}", pytest.ExitCode.USAGE_ERROR
    run.recorded = f"recorded {', '.join(sorted(added))} into the baseline {path}"
    return "", pytest.ExitCode.OK


def _incomplete(run: Run, exit_status: int) -> str:
    """Why this run did not measure everything that it was to record."""
    unmeasured = sorted(entry["name"] for entry in run.measured.values() if not entry["measured"])
    names = [entry["name"] for entry in run.measured.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    errors = [nodeid for nodeid, result in run.results.items() if result.outcome == "error"]
    skipped = [nodeid for nodeid, result in run.results.items() if result.outcome == "skipped"]
    if exit_status not in (0, 1) or run.usage_errors or run.specification_errors:
        return "the run did not come to its end"
    if run.not_run or skipped:
        return f"not measured: {', '.join([*run.not_run, *skipped])}"
    if errors or unmeasured:
        return f"not measured: {', '.join(errors or unmeasured)}"
    if twice:
        return f"two different circuits are called {', '.join(twice)}"
    if run.settings.update and (lost := missing(run)):
        return (
            f"{'; '.join(lost)}. Run it with all circuits, or delete the file and record it anew "
            "if they are gone on purpose"
        )
    return "" if run.measured else "no circuit was measured"


def _entries(run: Run) -> dict[str, Any]:
    """An entry for every circuit that was measured, in plain values."""
    from forgetguard.gate.baseline import entry_to_dict
    from forgetguard.gate.records import spec_from_dict
    from forgetguard.report.json_file import versions

    found = {}
    for measured in run.circuits_in_order():
        name = measured["name"]
        recorded = {
            "at": datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds"),
            "tuned": run.settings.tuned,
            "fingerprint": run.fingerprints.get("tuned", {}),
            "versions": versions(),
            "environment": measured["environment"],
        }
        found[name] = entry_to_dict(
            measured["measured"],
            spec_from_dict(measured["declared"]),
            run.fingerprints.get("base", {}),
            recorded,
            _gates(run, name),
        )
    return found


def _gates(run: Run, circuit: str) -> dict[str, str]:
    """The limits of a circuit that this run gated, each with its (first) gate."""
    found: dict[str, str] = {}
    for gate, _ in run.in_order():
        for name, limit in _judged(run, gate):
            if name == circuit:
                found.setdefault(limit, gate)
    return found
