"""Ends the run: closes the gate session, decides the exit status, writes the results file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_forgetguard import baseline, results_file
from pytest_forgetguard.keys import RUN

if TYPE_CHECKING:
    from pytest_forgetguard.state import Run


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make sure that no run that is not a pass ends like one."""
    run = session.config.stash[RUN]
    try:
        run.measurements.close()
    except Exception as error:
        run.problems.append(f"closing the models failed: {error!r}")
    if run.worker or session.config.option.collectonly:
        if run.specification_errors:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return
    status = decide(int(session.exitstatus), run)
    unrecorded, worst = baseline.record(run, status)
    if unrecorded:
        run.problems.append(unrecorded)
        status = status or int(worst)
    unwritten = results_file.end(run, status)
    if unwritten is not None:
        run.problems.append(unwritten)
        status = status or int(pytest.ExitCode.USAGE_ERROR)
    session.exitstatus = status


def decide(status: int, run: Run) -> int:
    """The exit status, from pytest's own; reasons that pytest does not print join `run.problems`.

    Never better than `status`; 0 only where every selected gate reported a pass.
    """
    if run.not_run:
        run.problems.append(f"not run: {', '.join(run.not_run)}")
    if not run.usage_errors and not run.specification_errors:
        run.problems += baseline.missing(run)
    if run.usage_errors or run.specification_errors:
        mendable = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
        silent = pytest.ExitCode.NO_TESTS_COLLECTED
        return int(pytest.ExitCode.USAGE_ERROR) if status in (*mendable, silent) else status
    if status != pytest.ExitCode.OK:
        return status
    if not run.planned:
        run.problems.append(f"no gate was run, {len(run.deselected)} deselected")
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    allowed = run.allowed_to_abstain
    unpassed = [
        f"{nodeid} ({result.outcome})"
        for nodeid, result in run.results.items()
        if result.outcome != "pass" and nodeid not in allowed
    ]
    if unpassed:
        run.problems.append(f"not passed: {', '.join(unpassed)}")
    elif len(allowed) == len(run.results):
        run.problems.append("every gate abstained: nothing was shown to be kept")
    return int(pytest.ExitCode.TESTS_FAILED if unpassed or run.problems else pytest.ExitCode.OK)
