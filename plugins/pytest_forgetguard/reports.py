"""Attaches verdicts to pytest's reports, and gathers them in the session's own process."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from forgetguard.errors import SpecificationError
from pytest_forgetguard.failure import GateFailure, NotHad, Recorded
from pytest_forgetguard.items import CircuitFile
from pytest_forgetguard.keys import is_gate
from pytest_forgetguard.state import OUTCOMES, Result, worst

if TYPE_CHECKING:
    from pytest_forgetguard.state import Run

# The attribute of a report that xdist carries across processes: plain values only.
ATTACHED = "forgetguard"


class Reports:
    """The hooks between a test's end and the run's results. A class, because pytest hands these
    hooks no config to find the run by."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._attempts: dict[str, list[Result]] = {}  # of this process, by gate

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """An attempt begins. (Python gates name circuits relative to their own file.)"""
        self._run.measurements.here = item.path
        self._attempts.setdefault(item.nodeid, []).append(Result())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach what this phase of the item says about its gate."""
        report = yield
        verdicts = self._run.measurements.drain()
        # A set-up that went well says nothing yet: the process may still die in the call.
        says_something = report.when == "call" or not report.passed
        if verdicts or (is_gate(item) and says_something):
            error = None if call.excinfo is None else call.excinfo.value
            outcome = _outcome(report, error, verdicts)
            if outcome == "pass" and report.when == "call" and self._run.uses.gates_nothing(item):
                outcome = "ungated"
            attempts = self._attempts[item.nodeid]
            attempts[-1].add(Result(outcome, _message(report), verdicts))
            attached: dict[str, Any] = {
                # What a circuit file asks for, where only measuring could tell that it cannot be.
                "specification": str(error) if isinstance(error, SpecificationError) else "",
                # All of them: whoever runs tests again may keep reports of some to himself.
                "attempts": [asdict(attempt) for attempt in attempts],
                "circuits": self._run.measurements.drain_circuits(),
            }
            setattr(report, ATTACHED, attached)
            reason = str(error) if isinstance(error, (Recorded, NotHad)) else ""
            if self._run.settings.allow_abstain and report.passed and outcome == "abstain":
                reason = f"ABSTAIN, allowed: {item.nodeid}"
            if reason:
                # What is allowed is still no pass: pytest, JUnit and all others call it skipped.
                report.outcome = "skipped"
                report.longrepr = (str(item.path), (item.reportinfo()[1] or 0) + 1, reason)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Mark circuit files that cannot be read: they end the run with exit status 4."""
        report = yield
        if report.failed and isinstance(collector, CircuitFile):
            setattr(report, ATTACHED, {"specification": str(report.longrepr)})
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Count unreadable circuit files, the workers' too."""
        attached = getattr(report, ATTACHED, None)
        if attached is not None:
            self._run.specification_errors[attached["specification"]] = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather results; a gate whose worker died has a report, but nothing attached."""
        attached: dict[str, Any] | None = getattr(report, ATTACHED, None)
        if attached is not None:
            if attached["specification"]:
                self._run.specification_errors[attached["specification"]] = None
            for entry in attached["circuits"]:
                self._run.add_circuit(entry)
            attempts = [Result(**attempt) for attempt in attached["attempts"]]
            self._run.add(report.nodeid, *attempts)
            _worst_counts(report, attempts)
        elif report.failed and report.nodeid in self._run.planned:
            self._run.add(report.nodeid, Result("error", _message(report)))


def _worst_counts(report: pytest.TestReport, attempts: Sequence[Result]) -> None:
    """Where a gate was run again and came off better than before: pytest is told of the worst."""
    *earlier, last = attempts
    if worst(one.outcome for one in attempts) == last.outcome or report.when != "call":
        return
    if report.passed or report.skipped:
        number = 1 + max(range(len(earlier)), key=lambda at: OUTCOMES.index(earlier[at].outcome))
        found = earlier[number - 1]
        report.outcome = "failed"
        report.longrepr = (
            f"{found.message or found.outcome}\n  This was attempt {number} of {len(attempts)}, "
            f"and the worst counts; the last one came to: {last.outcome}"
        )


def _outcome(
    report: pytest.TestReport, error: BaseException | None, verdicts: Sequence[dict[str, Any]]
) -> str:
    found = [verdict["outcome"] for verdict in verdicts]
    if isinstance(error, Recorded):
        found.append("recorded")
    elif isinstance(error, NotHad):
        found = ["not_had"]  # of a verdict that abstains because of the base
    elif report.skipped:  # an expected failure, too, is a gate that was not passed
        found.append("skipped")
    elif report.failed:
        found.append(error.outcome if isinstance(error, GateFailure) else "error")
    return worst(found)


def _message(report: pytest.TestReport) -> str:
    """The first line of what pytest would say."""
    if report.passed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message).partition("\n")[0]
    if isinstance(report.longrepr, tuple):  # a skip: path, line, reason
        return str(report.longrepr[2])
    return str(report.longrepr or "").strip().partition("\n")[0]
