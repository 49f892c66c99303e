"""The exit-status table of docs/gate.md, row by row: no run that is not a pass ends with 0."""

from __future__ import annotations

import pytest
from exit_table import documented

SKIP_ALL = """
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker("{mark}")
"""


def outcomes(project) -> dict[str, str]:
    return {entry["id"]: entry["outcome"] for entry in project.results()["results"]}


# --- 0 ---------------------------------------------------------------------------------------


def test_all_limits_kept(project, workers: int) -> None:
    project.circuit("good.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    result = project.gate(workers=workers)
    assert result.ret == documented("every selected limit was shown to be kept")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "args",
    [["-k", "good"], ["--deselect", "bad.circuit.yaml::bad"], ["good.circuit.yaml::good"]],
    ids=["-k", "--deselect", "node id"],
)
def test_some_deselected_and_the_others_kept(project, args: list[str], workers: int) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("bad.circuit.yaml")
    result = project.gate(*args, "--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented(
        "some gates were deselected (`-k`, `-m`, `--deselect`, a node id), and the others are kept"
    )
    results = project.results()
    assert outcomes(project) == {"good.circuit.yaml::good::dcv.circuit": "pass"}
    named = results["selection"]["by_name"]
    assert named or results["deselected"] == ["bad.circuit.yaml::bad::dcv.circuit"]


def test_last_failed_runs_only_those_and_says_so(project) -> None:
    project.circuit("good.circuit.yaml")
    bad = project.circuit("bad.circuit.yaml")
    project.gate()
    project.more_conftest(
        "def fake_verdict(circuit, limit, kind, family, plain=fake_verdict):\n"
        "    return plain(circuit, limit, 'good', family)\n"
    )
    result = project.gate("--lf", "--forgetguard-json=out.json")
    assert result.ret == documented("`--lf`: only what failed last time is run, and is kept now")
    assert list(outcomes(project)) == [f"{bad.name}::bad::dcv.circuit"]
    assert project.results()["selection"]["last_failed"] is True
    result.stdout.fnmatch_lines(["--lf: only gates that failed last time were run"])


def test_collect_only(project) -> None:
    project.circuit("bad.circuit.yaml")
    result = project.gate("--collect-only", "--forgetguard-json=out.json")
    assert result.ret == documented("`--collect-only`: nothing is measured, recorded or written")
    assert project.judged() == []
    assert not (project.path / "out.json").exists()


# --- 1 ---------------------------------------------------------------------------------------


def test_a_limit_that_is_exceeded(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("bad.circuit.yaml")
    result = project.gate()
    assert result.ret == documented("a limit is exceeded")
    result.assert_outcomes(passed=1, failed=1)


def test_a_verdict_that_abstains(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("vague.circuit.yaml")
    result = project.gate()
    assert result.ret == documented("a verdict abstains: not measurable, or not decided")
    result.assert_outcomes(passed=1, failed=1)


def test_a_circuit_that_cannot_be_measured_leaves_the_others_their_verdicts(
    project, workers: int
) -> None:
    for kind in ("good", "bad", "broken"):
        project.circuit(f"{kind}.circuit.yaml")
    result = project.gate("--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented("a circuit cannot be measured; the others get their verdicts")
    assert sorted(outcomes(project).values()) == ["error", "fail", "pass"]


def test_a_crash_in_one_circuit_leaves_the_others_their_verdicts(project, workers: int) -> None:
    for kind in ("good", "bad", "bug"):
        project.circuit(f"{kind}.circuit.yaml")
    result = project.gate("--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented(
        "a crash while one circuit is measured; the others get their verdicts"
    )
    assert sorted(outcomes(project).values()) == ["error", "fail", "pass"]
    result.stdout.fnmatch_lines(["*TypeError: a defect*"])


def test_fail_abstain_and_error_are_1_under_xdist(project) -> None:
    for kind in ("good", "bad", "vague", "broken"):
        project.circuit(f"{kind}.circuit.yaml")
    result = project.gate("--forgetguard-json=out.json", workers=2)
    assert result.ret == documented("a limit is exceeded")
    result.assert_outcomes(passed=1, failed=3)
    assert sorted(outcomes(project).values()) == ["abstain", "error", "fail", "pass"]


def test_checkpoints_that_cannot_be_opened_are_tried_once(project) -> None:
    project.more_conftest(
        "def session(self, circuits, progress, family, limits=()):\n"
        "    from forgetguard.errors import CheckpointError\n"
        "    log('opening')\n"
        "    raise CheckpointError('weights hold NaN; save them again')\n"
        "FakeBackend.session = session\n",
    )
    project.circuit("good.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    result = project.gate()
    assert result.ret == documented("the models cannot be opened")
    result.assert_outcomes(failed=2)
    assert project.log().count("opening") == 1
    result.stdout.fnmatch_lines(["ERROR: weights hold NaN; save them again"])


def test_models_that_cannot_be_closed(project, workers: int) -> None:
    project.more_conftest(
        "def close(self): raise RuntimeError('stuck')\nFakeSession.close = close\n"
    )
    project.circuit("good.circuit.yaml")
    result = project.gate(workers=workers)
    assert result.ret == documented("the models cannot be closed")
    result.stdout.fnmatch_lines(["forgetguard: closing the models failed: *stuck*"])


def test_failing_python_tests_beside_kept_limits(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_plain.py", "def test_plain(): assert 0")
    assert project.gate().ret == documented("a Python test beside the gates fails")


def test_a_worker_that_dies_and_is_replaced(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("crash.circuit.yaml")
    result = project.gate("--forgetguard-json=out.json", workers=2)
    assert result.ret == documented("an xdist worker dies and is replaced")
    assert outcomes(project)["crash.circuit.yaml::crash::dcv.circuit"] == "error"
    assert outcomes(project)["good.circuit.yaml::good::dcv.circuit"] == "pass"


def test_workers_that_die_and_are_not_replaced_leave_gates_not_run(project) -> None:
    for name in ("crash-a", "crash-b", "good-a", "good-b", "good-c", "good-d"):
        project.circuit(f"{name}.circuit.yaml")
    args = ("--max-worker-restart=0", "--forgetguard-json=out.json")
    result = project.gate(*args, "-n1")
    assert result.ret == documented("an xdist worker dies and is not replaced")
    results = project.results()
    assert results["complete"] is False
    assert "good-d.circuit.yaml::good-d::dcv.circuit" in results["not_run"]


def test_limits_that_others_skip(project, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    project.more_conftest(SKIP_ALL.format(mark="skip"))
    result = project.gate(workers=workers)
    assert result.ret == documented("a limit, or every limit, is skipped by a conftest")
    result.stdout.fnmatch_lines(["forgetguard: not passed: good.circuit.yaml::good::dcv.circuit*"])


def test_limits_that_others_expect_to_fail(project) -> None:
    project.circuit("bad.circuit.yaml")
    project.more_conftest(SKIP_ALL.format(mark="xfail"))
    result = project.gate()
    assert result.ret == documented("a limit is marked as an expected failure by a conftest")
    result.stdout.fnmatch_lines(["forgetguard: not passed: bad.circuit.yaml::bad::dcv.circuit*"])


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_stopping_at_the_first_failure_says_what_did_not_run(project, option: str) -> None:
    project.circuit("bad.circuit.yaml")
    project.circuit("good.circuit.yaml")
    result = project.gate(option, "--forgetguard-json=out.json")
    assert result.ret == documented(
        "`-x` or `--maxfail` stopped the run; the rest is listed as not run"
    )
    results = project.results()
    assert results["not_run"] == ["good.circuit.yaml::good::dcv.circuit"]
    assert results["complete"] is False
    result.stdout.fnmatch_lines(["0 pass, 1 fail, 1 not run", "*not run: good.circuit.yaml::good*"])


def test_stopping_under_xdist(project) -> None:
    for name in ("bad", "good-a", "good-b", "good-c", "good-d", "good-e"):
        project.circuit(f"{name}.circuit.yaml")
    result = project.gate("-x", workers=2)
    assert result.ret == documented("`-x` or `--maxfail` stopped the run under xdist")


def test_a_python_gate_that_is_skipped(project, workers: int) -> None:
    project.circuit("circuits/good.circuit.yaml")
    project.python(
        "test_gate.py",
        "import pytest\n@pytest.mark.forgetguard\ndef test_it(): pytest.skip('not today')\n",
    )
    result = project.gate("test_gate.py", workers=workers)
    assert result.ret == documented("a Python gate was skipped")


def test_a_python_gate_that_swallows_its_failure(project, workers: int) -> None:
    project.circuit("circuits/bad.circuit.yaml")
    project.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    try: forgetguard.assert_limit('circuits/bad.circuit.yaml', 'dcv.circuit')\n"
        "    except AssertionError: pass\n",
    )
    result = project.gate("test_gate.py", workers=workers)
    result.assert_outcomes(passed=1)
    assert result.ret == documented("a Python gate swallowed its failure")


def test_a_python_gate_without_checkpoints(project) -> None:
    project.python("test_gate.py", "def test_it(forgetguard): pass\n")
    assert project.run().ret == documented("a Python gate in a run without checkpoints")


# --- 2, 4, 5 ---------------------------------------------------------------------------------


def test_an_interrupt_closes_the_session(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("interrupt.circuit.yaml")
    project.circuit("zgood.circuit.yaml")
    result = project.gate_in_subprocess("--forgetguard-json=out.json")
    assert result.ret == documented("interrupted (Ctrl-C)")
    assert project.log()[-1] == "close"
    results = project.results()
    assert results["complete"] is False
    assert len(results["not_run"]) == 2


def test_a_circuit_that_proves_impossible_while_measuring(project, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("absurd.circuit.yaml")
    result = project.gate(workers=workers)
    assert result.ret == documented(
        "a circuit file asks for the impossible, found while measuring; the others get their "
        "verdicts"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["ERROR: *absurd.circuit.yaml:3: there is no task 'sums'*"])


def test_no_circuits_at_all(project, workers: int) -> None:
    result = project.gate(workers=workers)
    assert result.ret == documented("no circuits at all, or no bundled circuit fits the base")


@pytest.mark.parametrize("more", [[], ["--continue-on-collection-errors"]])
def test_an_unreadable_file(project, more: list[str], workers: int) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("void.circuit.yaml").write_text("")
    result = project.gate(*more, workers=workers)
    assert result.ret == documented("a circuit file is unreadable, even if all others pass")


def test_a_file_without_limits(project) -> None:
    file = project.circuit("good.circuit.yaml")
    file.write_text(file.read_text().partition("limits:")[0] + "limits: {}\n")
    assert project.gate().ret == documented("a circuit file declares no limits")


def test_two_circuits_of_one_name(project, workers: int) -> None:
    project.circuit("a/good.circuit.yaml")
    project.circuit("b/good.circuit.yaml")
    assert project.gate(workers=workers).ret == documented("two circuits of one name")
    assert project.judged() == []


def test_a_limit_against_no_reference(project, workers: int) -> None:
    project.circuit("good.circuit.yaml", **{"dcv_circuit_over.reference": 0.1})
    file = project.path / "good.circuit.yaml"
    file.write_text(file.read_text().replace("over.reference", "over_reference"))
    result = project.gate(workers=workers)
    assert result.ret == documented("a limit against a reference that was not given")


@pytest.mark.parametrize(
    "args",
    [["refrence=r"], ["tuned=u"], ["--forgetguard-dtype=int8"], ["--forgetguard-seed=x"]],
)
def test_an_option_that_is_off(project, args: list[str]) -> None:
    project.circuit("good.circuit.yaml")
    result = project.run("--forgetguard", "base=b", "tuned=t", *args)
    assert result.ret == documented(
        "unknown, empty, repeated or missing KEY=VALUE; a bad option value"
    )


def test_a_checkpoint_that_is_missing(project, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    more = ["-n2"] if workers else []
    result = project.run("--forgetguard", "base=b", "tuned=missing", *more)
    assert result.ret == documented("a checkpoint is missing, unfit, or the same as the base")


@pytest.mark.parametrize("target", ["nowhere/out.json", "taken"])
def test_a_results_file_that_cannot_be_written_at_the_start(project, target: str) -> None:
    project.circuit("good.circuit.yaml")
    (project.path / "taken").mkdir()
    result = project.gate(f"--forgetguard-json={target}")
    assert result.ret == documented(
        "the results file cannot be written: at the start, or at the end of a run that passed"
    )
    assert project.log() == []


def test_a_results_file_that_cannot_be_written_at_the_end(project, workers: int) -> None:
    (project.path / "out").mkdir()
    project.circuit("good.circuit.yaml")
    project.python("test_remove.py", "import shutil\ndef test_it(): shutil.rmtree('out')\n")
    result = project.gate("--forgetguard-json=out/out.json", workers=workers)
    result.assert_outcomes(passed=2)
    assert result.ret == documented(
        "the results file cannot be written: at the start, or at the end of a run that passed"
    )


def test_collect_only_of_an_unreadable_file(project) -> None:
    project.circuit("void.circuit.yaml").write_text("")
    result = project.gate("--collect-only")
    assert result.ret == documented("`--collect-only` of an unreadable circuit file")


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside passing tests"])
def test_all_gates_deselected(project, beside: bool, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    if beside:
        project.python("test_plain.py", "def test_plain(): pass")
    result = project.gate("-k", "plain", "--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented(
        "all gates were deselected (`-k`, `-m`, `--deselect`) or removed by a conftest, even if "
        "other tests passed"
    )
    assert project.results()["deselected"] == ["good.circuit.yaml::good::dcv.circuit"]
    assert project.results()["complete"] is False
    result.stdout.fnmatch_lines(["*1 gate deselected*"])


def test_gates_that_a_conftest_removes_unsaid_are_counted(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_plain.py", "def test_plain(): pass")
    project.more_conftest(
        "def pytest_collection_modifyitems(items):\n"
        "    items[:] = [item for item in items if item.name == 'test_plain']\n"
    )
    result = project.gate()
    assert result.ret == documented(
        "all gates were deselected (`-k`, `-m`, `--deselect`) or removed by a conftest, even if "
        "other tests passed"
    )
    result.stdout.fnmatch_lines(["forgetguard: no gate was run, 1 deselected"])
