"""Ends the run: closes the gate session, decides the exit status, writes the results file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from pytest_forgetguard import baseline, results_file
from pytest_forgetguard.state import RUN

if TYPE_CHECKING:
    from pytest_forgetguard.state import Run

_NAMED = 3  # gates that one line names


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
    status = decide(int(session.exitstatus), run, verbose=session.config.option.verbose > 0)
    unrecorded, worst = baseline.record(run, status)
    if unrecorded:
        run.problems.append(unrecorded)
        status = status or int(worst)
    run.ended = time.time()  # one content, and one checksum, wherever it is written
    unwritten = results_file.end(run, status)
    if unwritten:
        run.problems += unwritten
        status = status or int(pytest.ExitCode.USAGE_ERROR)
    session.exitstatus = run.exit_status = status


def decide(status: int, run: Run, *, verbose: bool = False) -> int:
    """The exit status, from pytest's own; reasons that pytest does not print join `run.problems`,
    with all the gates they are about where `verbose`.

    Never better than `status`; 0 only where every selected gate reported a pass, or gates nothing
    beside others that did.
    """
    if run.not_run:
        run.problems.append(f"not run: {listed(run.not_run, verbose=verbose)}")
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
        if result.outcome not in ("pass", "ungated", "not_had") and nodeid not in allowed
    ]
    if unpassed:
        run.problems.append(f"not passed: {listed(unpassed, verbose=verbose)}")
    elif not any(result.outcome == "pass" for result in run.results.values()):
        run.problems.append(
            "no gate asserted a limit that was kept: nothing was shown to be kept; use "
            "forgetguard.assert_limit or forgetguard.check"
            if run.gates("ungated")
            else "the base has none of the capabilities of the bundled circuits: nothing was shown "
            "to be kept; write a circuit file for what it can do (forgetguard discover)"
            if run.gates("not_had")
            else "every gate abstained: nothing was shown to be kept"
        )
    return int(pytest.ExitCode.TESTS_FAILED if unpassed or run.problems else pytest.ExitCode.OK)


def listed(gates: Sequence[str], *, verbose: bool) -> str:
    """The gates' names; of many their number and the first, unless `verbose`."""
    if verbose or len(gates) <= _NAMED:
        return ", ".join(gates)
    named, more = ", ".join(gates[:_NAMED]), len(gates) - _NAMED
    return f"{len(gates)} gates: {named} and {more} more (-v names all)"
