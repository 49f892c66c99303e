"""The exit-status table of docs/gate.md, row by row: no run that is not a pass ends with 0."""

from __future__ import annotations

import pytest

OK, FAILED, INTERRUPTED, USAGE, EMPTY = 0, 1, 2, 4, 5
SKIP_ALL = """
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker("{mark}")
"""


def test_all_limits_kept_is_0(project, workers: int) -> None:
    project.circuit("good.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    result = project.gate(workers=workers)
    assert result.ret == OK
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("kind", ["bad", "vague", "broken", "bug"])
def test_a_limit_not_shown_to_be_kept_is_1(project, kind: str) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit(f"{kind}.circuit.yaml")
    result = project.gate()
    assert result.ret == FAILED
    result.assert_outcomes(passed=1, failed=1)


def test_fail_abstain_and_error_are_1_under_xdist(project) -> None:
    for kind in ("good", "bad", "vague", "broken"):
        project.circuit(f"{kind}.circuit.yaml")
    result = project.gate("--forgetguard-json=out.json", workers=2)
    assert result.ret == FAILED
    result.assert_outcomes(passed=1, failed=3)
    outcomes = {entry["id"]: entry["outcome"] for entry in project.results()["results"]}
    assert sorted(outcomes.values()) == ["abstain", "error", "fail", "pass"]


def test_checkpoints_that_cannot_be_opened_are_1_and_tried_once(project) -> None:
    project.more_conftest(
        "def session(self, circuits, progress):\n"
        "    from forgetguard.errors import CheckpointError\n"
        "    log('opening')\n"
        "    raise CheckpointError('weights hold NaN; save them again')\n"
        "FakeBackend.session = session\n",
    )
    project.circuit("good.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    result = project.gate()
    assert result.ret == FAILED
    result.assert_outcomes(failed=2)
    assert project.log().count("opening") == 1
    result.stdout.fnmatch_lines(["ERROR: weights hold NaN; save them again"])


def test_a_worker_that_dies_is_1(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("crash.circuit.yaml")
    result = project.gate("--forgetguard-json=out.json", workers=2)
    assert result.ret == FAILED
    outcomes = {entry["id"]: entry["outcome"] for entry in project.results()["results"]}
    assert outcomes["crash.circuit.yaml::crash::dcv.circuit"] == "error"
    assert outcomes["good.circuit.yaml::good::dcv.circuit"] == "pass"


def test_workers_that_die_and_are_not_replaced_leave_gates_not_run(project) -> None:
    for name in ("crash-a", "crash-b", "good-a", "good-b", "good-c", "good-d"):
        project.circuit(f"{name}.circuit.yaml")
    args = ("--max-worker-restart=0", "--forgetguard-json=out.json")
    result = project.gate(*args, "-n1")
    assert result.ret == FAILED
    results = project.results()
    assert results["complete"] is False
    assert "good-d.circuit.yaml::good-d::dcv.circuit" in results["not_run"]


@pytest.mark.parametrize("mark", ["skip", "xfail"])
def test_a_limit_that_others_skip_or_expect_to_fail_is_1(project, mark: str) -> None:
    project.circuit("bad.circuit.yaml")
    project.more_conftest(SKIP_ALL.format(mark=mark))
    result = project.gate()
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["forgetguard: not passed: bad.circuit.yaml::bad::dcv.circuit*"])


def test_skipping_is_1_under_xdist_too(project) -> None:
    project.circuit("good.circuit.yaml")
    project.more_conftest(SKIP_ALL.format(mark="skip"))
    assert project.gate(workers=2).ret == FAILED


def test_stopping_at_the_first_failure_is_1_and_says_what_did_not_run(project) -> None:
    project.circuit("bad.circuit.yaml")
    project.circuit("good.circuit.yaml")
    result = project.gate("-x", "--forgetguard-json=out.json")
    assert result.ret == FAILED
    results = project.results()
    assert results["not_run"] == ["good.circuit.yaml::good::dcv.circuit"]
    assert results["complete"] is False
    result.stdout.fnmatch_lines(["0 pass, 1 fail, 1 not run", "*not run: good.circuit.yaml::good*"])


def test_stopping_under_xdist_is_2(project) -> None:
    for name in ("bad", "good-a", "good-b", "good-c", "good-d", "good-e"):
        project.circuit(f"{name}.circuit.yaml")
    assert project.gate("-x", workers=2).ret == INTERRUPTED


def test_an_interrupt_is_2_and_closes_the_session(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("interrupt.circuit.yaml")
    project.circuit("zgood.circuit.yaml")
    result = project.gate_in_subprocess("--forgetguard-json=out.json")
    assert result.ret == INTERRUPTED
    assert project.log()[-1] == "close"
    results = project.results()
    assert results["complete"] is False
    assert len(results["not_run"]) == 2


def test_a_circuit_that_proves_impossible_while_measuring_is_4(project, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("absurd.circuit.yaml")
    result = project.gate(workers=workers)
    assert result.ret == USAGE
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["ERROR: *absurd.circuit.yaml:3: there is no task 'sums'*"])


def test_no_circuits_at_all_is_4(project) -> None:
    assert project.gate().ret == USAGE


def test_a_file_without_limits_is_4(project) -> None:
    file = project.circuit("good.circuit.yaml")
    file.write_text(file.read_text().partition("limits:")[0] + "limits: {}\n")
    assert project.gate().ret == USAGE


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside passing tests"])
def test_all_gates_deselected_is_5(project, beside: bool) -> None:
    project.circuit("good.circuit.yaml")
    if beside:
        project.python("test_plain.py", "def test_plain(): pass")
    result = project.gate("-k", "plain", "--forgetguard-json=out.json")
    assert result.ret == EMPTY
    assert project.results()["deselected"] == ["good.circuit.yaml::good::dcv.circuit"]
    assert project.results()["complete"] is False


def test_all_gates_deselected_is_5_under_xdist(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_plain.py", "def test_plain(): pass")
    result = project.gate("-k", "plain", workers=2)
    assert result.ret == EMPTY
    result.stdout.fnmatch_lines(["forgetguard: no gate was run, 1 deselected"])


def test_gates_that_a_conftest_removes_unsaid_are_counted(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_plain.py", "def test_plain(): pass")
    project.more_conftest(
        "def pytest_collection_modifyitems(items):\n"
        "    items[:] = [item for item in items if item.name == 'test_plain']\n"
    )
    result = project.gate()
    assert result.ret == EMPTY
    result.stdout.fnmatch_lines(["forgetguard: no gate was run, 1 deselected"])


def test_failing_python_tests_beside_kept_limits_are_1(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_plain.py", "def test_plain(): assert 0")
    assert project.gate().ret == FAILED


def test_collect_only_is_0(project) -> None:
    project.circuit("bad.circuit.yaml")
    assert project.gate("--collect-only").ret == OK


def test_collect_only_of_an_unreadable_file_is_4(project) -> None:
    project.circuit("void.circuit.yaml").write_text("")
    assert project.gate("--collect-only").ret == USAGE
