"""`forgetguard check` on the tiny family, as a user runs it: the gate's verdicts and status."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gate_process import run_gate
from warm_python import warm_python

from forgetguard.cli import check as command
from forgetguard.cli import main
from forgetguard.report import page

CIRCUITS = Path(__file__).parents[2] / "circuits"
JARGON = ("pytest", "test session", "collected", "passed", "failed", "Traceback")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose own tests and settings would break any run that took them up."""
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    (work / "conftest.py").write_text("raise RuntimeError('the folder is none of its business')\n")
    (work / "test_own.py").write_text("def test_own():\n    raise RuntimeError\n")
    (work / "pytest.py").write_text("import sys\nsys.exit(0)\n")
    (work / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    return work


def check(folder: Path, *arguments: str) -> tuple[int, str, str]:
    wanted = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    wanted |= {"PYTEST_ADDOPTS": "--no-such-option", "PYTEST_PLUGINS": "no_such_plugin"}
    done = subprocess.run(
        [warm_python(), "-m", "forgetguard", "check", *arguments],
        cwd=folder, env=os.environ | wanted, check=False, text=True, capture_output=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def verdicts(file: Path) -> list[dict[str, Any]]:
    return [one for result in json.loads(file.read_text())["results"] for one in result["verdicts"]]


def test_a_check_is_the_gate_of_pytest_without_its_output(folder: Path, tmp_path: Path) -> None:
    gate = str(CIRCUITS / "tiny-induction.circuit.yaml")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    status, out = run_gate(
        elsewhere, "base=tiny:base", "tuned=tiny:sft", gate, "--forgetguard-json=gate.json"
    )
    found, told, err = check(folder, "tiny:base", "tiny:sft", gate, "--json", "check.json")
    assert (found, err) == (status, "") == (1, ""), out
    assert verdicts(folder / "check.json") == verdicts(elsewhere / "gate.json")
    assert not [word for word in JARGON if word in told.replace(str(folder), "")]
    assert "FAIL tiny-induction dcv.circuit: " in told
    assert sorted(file.name for file in folder.iterdir()) == [
        "check.json", "conftest.py", "pytest.ini", "pytest.py", "test_own.py",
    ]  # fmt: skip


def test_without_gate_files_the_bundled_circuits_are_judged_and_timed(folder: Path) -> None:
    status, told, _ = check(folder, "tiny:base", "tiny:lora", "tiny:sft", "--json", "out.json")
    assert status == 1
    assert told.startswith("5 bundled circuits: fact_recall, greater_than, induction, ioi, ")
    assert "20 limits on 320 prompts: " in told
    lora, tuned = (verdicts(folder / f"out.tiny-{name}.json") for name in ("lora", "sft"))
    assert len(lora) == len(tuned) == 20
    assert "fail" not in {one["outcome"] for one in lora}
    assert "fail" in {one["outcome"] for one in tuned}
    assert told.splitlines()[-22].split() == ["circuit", "limit", "tiny-lora", "tiny-sft"]
    assert told.splitlines()[-1].startswith("all ")
    # What it took is remembered, so that the next estimate rests on it and loads nothing.
    status, told, _ = check(folder, "tiny:base", "tiny:sft", "--estimate")
    assert status == 0
    assert "from earlier checks of this base here" in told.splitlines()[-1]


def test_the_page_of_a_check_names_the_command_that_is_that_run_again(folder: Path) -> None:
    text = "forgetguard: 2\nname: weights\nlimits: {drift.weights: {max: 0.9}}\n"
    (folder / "weights.gate.yaml").write_text(text)
    check(folder, "tiny:base", "tiny:lora", "--json", "out.json", "--prompt-seed", "7")
    written = json.loads((folder / "out.json").read_text())
    again = shlex.split(page.command(page.run_of(written)))
    assert again == ["forgetguard", "check", "tiny:base", "tiny:lora", "--prompt-seed=7"]
    check(folder, *again[2:], "--json", "again.json")
    assert verdicts(folder / "again.json") == verdicts(folder / "out.json") != []


def test_an_estimate_of_a_new_base_times_it_and_judges_nothing(folder: Path) -> None:
    status, told, err = check(folder, "tiny:base", "tiny:sft", "--estimate")
    assert (status, err) == (0, "")
    assert told.splitlines()[-1].startswith("estimated time: ")
    assert "from a timed pass of the base" in told
    assert "verdict" not in told


def test_a_folder_of_gates_runs_no_python_test_in_it(folder: Path) -> None:
    text = "forgetguard: 2\nname: weights\nlimits: {drift.weights: {max: 0.9}}\n"
    (folder / "weights.gate.yaml").write_text(text)
    status, told, _ = check(folder, "tiny:base", "tiny:sft", ".")
    assert status == 0
    assert "1 pass" in told


def test_a_run_that_ends_well_without_results_is_no_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_PYTEST", ("-c", "pass"))
    assert main(["check", "tiny:base", "tiny:lora", str(CIRCUITS / "tiny-ioi.circuit.yaml")]) == 3
    assert "has no results" in capfd.readouterr().err
