"""Plugins that run a failed test again: of all attempts at a gate the worst counts, and all are
kept. The three ways in which known plugins go about it, in short."""

from __future__ import annotations

import pytest
from exit_table import documented

JSON = "--forgetguard-json=out.json"
BETTER = "a gate that did not pass is run again by another plugin, and passes: the worst counts"
# The backend says FAIL, or ABSTAIN or an error, and from then on pass.
FICKLE = """
def fickle(circuit, limit, kind, family, plain=fake_verdict, asked=set()):
    first, _ = circuit.name not in asked, asked.add(circuit.name)
    return plain(circuit, limit, kind if first else 'good', family)
fake_verdict = fickle
"""
AGAIN = {
    "as pytest-rerunfailures": """
from _pytest.runner import runtestprotocol
def pytest_runtest_protocol(item, nextitem):
    for attempt in (1, 2, 3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        again = attempt < 3 and any(report.failed for report in reports)
        for report in reports:
            if report.failed and again:
                report.outcome = 'rerun'
            item.ihook.pytest_runtest_logreport(report=report)
        if not again:
            return True
""",
    "as flaky": """
from _pytest.runner import runtestprotocol
def pytest_runtest_protocol(item, nextitem):
    for attempt in (1, 2, 3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if attempt == 3 or not any(report.failed for report in reports):
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            return True
""",
    "as pytest-retry": """
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and call.when == 'call':
        item.ihook.pytest_runtest_teardown(item=item, nextitem=None)
        item._initrequest()
        item.ihook.pytest_runtest_setup(item=item)
        call = pytest.CallInfo.from_call(
            lambda: item.ihook.pytest_runtest_call(item=item), when='call'
        )
        again = pytest.TestReport.from_item_and_call(item, call)
        report.outcome, report.longrepr = again.outcome, again.longrepr
    return report
""",
}


@pytest.mark.parametrize("kind", ["bad", "vague"])
@pytest.mark.parametrize("way", AGAIN)
def test_a_gate_that_passes_when_asked_again_is_no_pass(
    project, way: str, kind: str, workers: int
) -> None:
    project.circuit(f"{kind}.circuit.yaml")
    project.circuit("good.circuit.yaml")
    project.more_conftest(FICKLE + AGAIN[way])
    result = project.gate(JSON, workers=workers)
    assert result.ret == documented(BETTER)
    results = project.results()
    came_to = {"bad": "fail", "vague": "abstain"}[kind]
    by_file = {one["id"].partition(".")[0]: one for one in results["results"]}
    first, second = by_file[kind], by_file["good"]
    assert (first["outcome"], first["attempts"]) == (came_to, [came_to, "pass"])
    assert [verdict["outcome"] for verdict in first["verdicts"]] == [came_to, "pass"]
    assert (second["outcome"], second["attempts"]) == ("pass", ["pass"])
    assert results["exit_status"] == 1
    assert f"{kind}.circuit.yaml::{kind}::dcv.circuit" in result.stdout.str()


@pytest.mark.parametrize("way", list(AGAIN)[:2])
def test_pytest_and_junit_are_told_of_the_worst_attempt(project, way: str, workers: int) -> None:
    project.circuit("bad.circuit.yaml")
    project.more_conftest(FICKLE + AGAIN[way])
    result = project.gate("--junitxml=junit.xml", workers=workers)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAIL: DCV 0.55 *", "*attempt 1 of 2*worst counts*: pass"])
    assert 'failures="1"' in (project.path / "junit.xml").read_text()


@pytest.mark.parametrize("way", AGAIN)
def test_an_error_is_the_worst_whatever_follows(project, way: str) -> None:
    project.circuit("broken.circuit.yaml")
    project.more_conftest(
        "def once(circuit, plain=fail_by_name, asked=set()):\n"
        "    if circuit.name not in asked:\n"
        "        asked.add(circuit.name)\n"
        "        plain(circuit)\n"
        "fail_by_name = once\n" + AGAIN[way]
    )
    assert project.gate(JSON).ret == documented(BETTER)
    (only,) = project.results()["results"]
    assert (only["outcome"], only["attempts"]) == ("error", ["error", "pass"])


@pytest.mark.parametrize("way", AGAIN)
def test_a_python_gate_that_passes_when_run_again_is_no_pass(project, way: str) -> None:
    project.circuit("circuits/bad.circuit.yaml")
    project.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('circuits/bad.circuit.yaml', 'dcv.circuit')\n",
    )
    project.more_conftest(FICKLE + AGAIN[way])
    assert project.gate("test_gate.py", JSON).ret == documented(BETTER)
    (only,) = project.results()["results"]
    assert (only["outcome"], only["attempts"]) == ("fail", ["fail", "pass"])
