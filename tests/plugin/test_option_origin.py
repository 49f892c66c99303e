"""`--forgetguard-origin`: a failing limit says which parts of the checkpoint carry the loss, and
the results file holds the numbers, once a circuit; without it the summary names the option."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gate_process import run_gate

ROOT = Path(__file__).parents[2]
PYTHON = """\
import pytest

def test_in_python(forgetguard):
    with pytest.raises(AssertionError, match="origin: token embedding"):
        forgetguard.assert_limit("tiny-induction.circuit.yaml", "readout.drop")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    circuits = ROOT / "circuits"
    shutil.copy(circuits / "tiny-induction.circuit.yaml", tmp_path)
    (tmp_path / "prompts").mkdir()
    shutil.copy(circuits / "prompts" / "tiny-induction.jsonl", tmp_path / "prompts")
    return tmp_path


def gate(folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    options = ("base=tiny:base", "tuned=tiny:sft", "--forgetguard-json=out.json", *arguments)
    _, output = run_gate(folder, *options)
    document: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return output, document


def test_it_is_measured_once_a_circuit_and_shown_by_every_limit_that_fails(folder: Path) -> None:
    output, document = gate(folder, "--forgetguard-origin")
    outcomes = [one["outcome"] for one in document["results"]]
    assert outcomes.count("fail") == 2
    assert output.count("origin: token embedding") == 2  # not of those that abstain
    (circuit,) = document["circuits"]
    read = circuit["origin"]
    assert (read["parts"][0]["part"]["kind"], read["lost"]) == ("tied_embedding", True)
    assert sum(one["share"]["readout"] for one in read["parts"]) == pytest.approx(1)
    assert "--forgetguard-origin" not in output.split("forgetguard: base=")[-1].split("====")[0]


def test_without_it_nothing_is_measured_and_the_summary_names_it(folder: Path) -> None:
    output, document = gate(folder)
    assert "origin:" not in output
    file = folder / "tiny-induction.circuit.yaml"
    assert "add --forgetguard-origin" in output
    assert f"forgetguard origin base=tiny:base tuned=tiny:sft {file}" in output
    assert "origin" not in document["circuits"][0]


def test_workers_and_the_ini_file_and_gates_in_python(folder: Path) -> None:
    (folder / "pytest.ini").write_text("[pytest]\nforgetguard_origin = true\n")
    (folder / "test_it.py").write_text(PYTHON)
    output, document = gate(folder, "-n", "1")
    assert output.count("origin: token embedding") == 2
    (circuit,) = document["circuits"]
    assert circuit["origin"]["parts"]
    assert document["options"]["origin"] is True


FAILS = """
def origin(self, circuit):
    from forgetguard.errors import MeasurementError
    log(f"origin {circuit.name}")
    raise MeasurementError("too little memory")
FakeSession.origin = origin
"""


def test_what_cannot_be_measured_is_said_and_the_verdict_stands(project: Any) -> None:
    project.circuit("bad.circuit.yaml", dcv_circuit=0.1, readout_drop=0.2)
    project.circuit("good.circuit.yaml")
    project.more_conftest(FAILS)
    result = project.gate("--forgetguard-origin", "--forgetguard-json=out.json")
    result.assert_outcomes(failed=2, passed=1)
    assert [line for line in project.log() if line.startswith("origin")] == ["origin bad"]
    results = project.results()
    assert [one["outcome"] for one in results["results"]] == ["fail", "fail", "pass"]
    assert {one["name"]: one.get("origin") for one in results["circuits"]} == {
        "bad": {"error": "too little memory"},
        "good": None,
    }
    assert result.stdout.str().count("origin: not measured: too little memory") == 2
