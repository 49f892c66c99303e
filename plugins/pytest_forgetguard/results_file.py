"""What this run writes into the results file and the page, at its start and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forgetguard.errors import SpecificationError
from pytest_forgetguard.settings import Settings

if TYPE_CHECKING:
    from pytest_forgetguard.state import Run


def begin(run: Run) -> None:
    """Write results file and page with nothing in them yet: an older run's results must not be
    taken for this one's, whatever happens to the process.

    Raises:
        SpecificationError: one cannot be written.
    """
    from forgetguard.report.json_file import check_target

    for what, path, write in _targets(run):
        check_target(path, what)
        try:
            write(path, document(run, None))
        except OSError as error:
            raise SpecificationError(
                f"cannot write {what} {path}: {error.strerror or error}; make room, or name "
                f"another path"
            ) from error


def end(run: Run, exit_status: int) -> list[str]:
    """Write the results; return what went wrong."""
    problems = []
    for what, path, write in _targets(run):
        try:
            write(path, document(run, exit_status))
        except OSError as error:
            run.unwritten.append(path)
            problems.append(
                f"{what} {path} was not written: {error.strerror or error}; what it says now is "
                f"that the run has no end: make room and run again"
            )
    return problems


def _targets(run: Run) -> Iterator[tuple[str, Path, Callable[[Path, dict[str, Any]], None]]]:
    """What is written of this run: what it is, where, and by what."""
    if run.settings.json is not None:
        from forgetguard.report import json_file

        yield "the results file", run.settings.json, json_file.write
    if run.settings.html is not None:
        from forgetguard.report import page

        yield "the page", run.settings.html, page.write


def document(run: Run, exit_status: int | None) -> dict[str, Any]:
    """The results file's content; `exit_status` None: the run has only begun."""
    from pydantic import TypeAdapter

    from forgetguard.report.json_file import versions

    finished = exit_status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    unjudged = ("skipped", "recorded")
    all_judged = all(result.outcome not in unjudged for result in run.results.values())
    return {
        "complete": finished and all_judged and bool(run.planned) and not run.not_run,
        "exit_status": exit_status,
        "started": datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds"),
        "seconds": round((run.ended or time.time()) - run.started, 3),
        "options": TypeAdapter(Settings).dump_python(run.settings, mode="json"),
        "seed": run.settings.seed,
        "selection": run.selection,
        "versions": versions(),
        "fingerprints": run.fingerprints,
        "size": run.size,
        "circuits_from": run.circuits_from,
        "left_out": list(run.left_out),
        "baseline": _baseline(run),
        "notes": run.notes,
        "errors": [*run.usage_errors, *run.specification_errors, *run.problems],
        "results": [
            {"id": nodeid, **asdict(result)}
            for nodeid, result in run.in_order()
            if result.outcome != "ungated"
        ],
        "circuits": run.circuits_in_order(),
        "not_run": run.not_run,
        "allowed_to_abstain": run.allowed_to_abstain,
        "not_had": run.gates("not_had"),
        "ungated": run.gates("ungated"),
        "deselected": list(run.deselected),
    }


def _baseline(run: Run) -> dict[str, Any] | None:
    """Which baseline was in force, as the file is now, and what became of it."""
    from forgetguard.gate.checksum import digest_file

    path = run.settings.baseline
    if path is None:
        return None
    return {"path": str(path), "sha256": digest_file(path), "recorded": run.recorded}
