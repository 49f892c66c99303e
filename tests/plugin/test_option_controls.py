"""`--forgetguard-controls`: other heads beside each verdict; and every limit of a run counts in its
family, whichever worker judges it, deselected ones too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gate_process import run_gate

CIRCUIT = """\
forgetguard: 1
capability: indirect objects
pairs: {task: ioi, count: 12, seed: 1, most: 24}
readout: logit_diff
circuit: [L2H2, L0H2]
limits:
  dcv.circuit: {max: 0.9}
  dcv.head: {max: 0.9, floor: 0.2}
"""
PYTHON = """\
def test_both(forgetguard):
    verdicts = forgetguard.check("first.circuit.yaml")
    assert [verdict.family for verdict in verdicts] == [10, 10]  # 5 gates, and 2 limits in this one
"""


def gate(folder: Path, *arguments: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Output of a gate run in `folder`, and its verdicts by gate."""
    options = ("base=tiny:base", "tuned=tiny:lora", "--forgetguard-json=out.json", *arguments)
    _, output = run_gate(folder, *options)
    document = json.loads((folder / "out.json").read_text())
    assert document["complete"], output
    found = {entry["id"]: entry["verdicts"] for entry in document["results"]}
    return output, {
        f"{name} {verdict['limit']}": verdict
        for name, verdicts in found.items()
        for verdict in verdicts
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "first.circuit.yaml").write_text(CIRCUIT)
    (tmp_path / "second.circuit.yaml").write_text(CIRCUIT.replace("L0H2", "L1H4"))
    (tmp_path / "test_it.py").write_text(PYTHON)
    return tmp_path


def test_controls_are_shown_and_workers_agree_on_them_and_on_the_family(folder: Path) -> None:
    output, alone = gate(folder, "--forgetguard-controls=2")
    assert len(alone) == 6
    whole = alone["first.circuit.yaml::first::dcv.circuit dcv.circuit"]
    assert [one["name"] for one in whole["controls"]] == ["random 1", "random 2", "second"]
    assert whole["controls"][2]["members"] == ["L1H4"]
    assert whole["family"] == 5
    assert whole["budget"] == 24
    assert "controls: 2 random sets" in output
    _, shared = gate(folder, "--forgetguard-controls=2", "-n", "2")
    assert shared == alone


def test_without_the_option_there_are_none_and_deselected_limits_stay_in_the_family(
    folder: Path,
) -> None:
    output, found = gate(folder, "-k", "first and dcv.circuit")
    (verdict,) = found.values()
    assert verdict["controls"] == []
    assert verdict["family"] == 5
    assert "controls" not in output


@pytest.mark.parametrize("value", ["some", "-1", "1.5"])
def test_no_number_of_controls_is_refused(project, value: str) -> None:
    project.circuit("good.circuit.yaml")
    result = project.gate(f"--forgetguard-controls={value}")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*--forgetguard-controls: '{value}' is not a whole number*"])


def test_the_command_to_run_a_gate_again_asks_for_them_too(project) -> None:
    project.circuit("bad.circuit.yaml")
    result = project.gate("--forgetguard-controls=3")
    result.stdout.fnmatch_lines(["*run only this: *--forgetguard-controls=3 *bad.circuit.yaml*"])
