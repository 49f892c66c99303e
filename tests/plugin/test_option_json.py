"""`--forgetguard-json`: one results file for the run, whole, and never a stale one."""

from __future__ import annotations

import pytest

from forgetguard.gate.records import verdict_from_dict
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.report import json_file


def test_every_verdict_is_in_the_file(project, workers: int) -> None:
    project.circuit("bad.circuit.yaml")
    project.circuit("good.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    project.gate("--forgetguard-json=out.json", "--forgetguard-seed=3", workers=workers)
    results = json_file.read(project.path / "out.json")
    assert results["complete"] is True
    assert results["exit_status"] == 1
    assert [entry["id"] for entry in results["results"]] == [
        "bad.circuit.yaml::bad::dcv.circuit",
        "good.circuit.yaml::good::dcv.circuit",
        "good.circuit.yaml::good::dcv.head",
    ]
    verdict = verdict_from_dict(results["results"][0]["verdicts"][0])
    assert (verdict.outcome, verdict.code) == (Outcome.FAIL, Code.BEYOND)
    assert verdict.subjects[0].subject == "L2H2"
    assert results["options"]["base"] == "b"
    assert results["options"]["seed"] == 3
    assert results["fingerprints"] == {"base": {"weights": "abc"}}
    assert "vocabulary resized" in results["notes"]
    assert {"python", "torch", "forgetguard"} <= results["versions"].keys()


def test_an_older_file_does_not_survive_a_run_that_dies(project) -> None:
    project.circuit("crash.circuit.yaml")
    (project.path / "out.json").write_text('{"complete": true}')
    project.gate_in_subprocess("--forgetguard-json=out.json")
    assert project.results()["complete"] is False


def test_a_refused_run_says_why(project) -> None:
    project.run("--forgetguard", "base=b", "tuned=missing", "--forgetguard-json=out.json")
    results = project.results()
    assert results["errors"] == ["there is no checkpoint 'missing'; check the path"]
    assert results["exit_status"] == 4


def test_unreadable_circuits_are_in_the_file(project, workers: int) -> None:
    project.circuit("void.circuit.yaml").write_text("")
    project.gate("--forgetguard-json=out.json", workers=workers)
    results = project.results()
    assert "the file is empty" in results["errors"][0]
    assert results["complete"] is False


@pytest.mark.parametrize("target", ["nowhere/out.json", "folder"])
def test_a_path_that_cannot_be_written_is_refused_at_the_start(project, target: str) -> None:
    project.circuit("good.circuit.yaml")
    (project.path / "folder").mkdir()
    result = project.gate(f"--forgetguard-json={target}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*cannot write the results file*"])
    assert project.log() == []


def test_a_file_that_cannot_be_written_at_the_end_is_no_pass(project) -> None:
    (project.path / "out").mkdir()
    project.circuit("good.circuit.yaml")
    project.python(
        "test_remove.py",
        "import shutil\ndef test_it(): shutil.rmtree('out')\n",
    )
    result = project.gate("--forgetguard-json=out/out.json")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["forgetguard: the results file *out.json was not written:*"])
    result.stdout.no_fnmatch_line("results: *")


def test_a_disk_that_fills_up_is_told_in_one_line_and_the_verdicts_stay(
    project, workers: int
) -> None:
    project.circuit("bad.circuit.yaml")
    project.more_conftest(
        "import errno, forgetguard.report.json_file as file\n"
        "def full(path, text, plain=file.write_text, calls=[]):\n"
        "    calls.append(path)\n"
        "    if len(calls) > 1:\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "    plain(path, text)\n"
        "file.write_text = full\n"
    )
    result = project.gate_in_subprocess(
        "--forgetguard-json=out.json", *(["-n", str(workers)] if workers else [])
    )
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert sum("No space left on device" in line for line in result.outlines) == 1
    result.stdout.fnmatch_lines(["bad * dcv.circuit * FAIL"])
    assert project.results()["exit_status"] is None
    assert [file.name for file in project.path.glob("*out.json*")] == ["out.json"]


def test_the_path_is_relative_to_where_pytest_was_started(project, monkeypatch) -> None:
    project.circuit("sub/good.circuit.yaml")
    project.pytester.makeini("[pytest]\n")
    monkeypatch.chdir(project.path / "sub")
    project.gate("--forgetguard-json=out.json")
    assert (project.path / "sub" / "out.json").is_file()


def test_nothing_else_is_left_in_the_folder(project) -> None:
    project.circuit("good.circuit.yaml")
    project.gate("--forgetguard-json=out.json", "-pno:cacheprovider")
    left = {entry.name for entry in project.path.iterdir()} - {"__pycache__"}
    assert left == {"conftest.py", "good.circuit.yaml", "out.json"}
