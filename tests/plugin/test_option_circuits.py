"""`--forgetguard-circuits` adds files and folders to what the paths hold."""

from __future__ import annotations

import pytest


def test_files_and_folders_add_to_the_paths(project, workers: int) -> None:
    project.circuit("tests/good.circuit.yaml")
    project.circuit("kept/deep/good-a.circuit.yaml")
    project.circuit("other/good-b.circuit.yaml")
    project.circuit("other/good-c.circuit.yaml")
    result = project.gate(
        "tests",
        "--forgetguard-circuits=kept",
        "--forgetguard-circuits",
        "other/good-b.circuit.yaml",
        workers=workers,
    )
    assert result.ret == 0
    names = ["good dcv.circuit", "good-a dcv.circuit", "good-b dcv.circuit"]
    assert sorted(project.judged()) == names


def test_only_circuits_are_taken_from_a_folder(project) -> None:
    project.circuit("kept/good.circuit.yaml")
    project.python("kept/test_slow.py", "def test_it(): assert 0")
    (project.path / "empty").mkdir()
    assert project.gate("empty", "--forgetguard-circuits=kept").ret == 0


def test_a_circuit_named_twice_is_run_once(project) -> None:
    project.circuit("kept/good.circuit.yaml")
    assert project.gate("kept", "--forgetguard-circuits=kept").ret == 0
    assert project.judged() == ["good dcv.circuit"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "*nowhere is neither a circuit or gate file*"),
        ("empty", "*empty: no [*].circuit.yaml in this folder*"),
        ("good.yaml", "*good.yaml does not end in .circuit.yaml or .gate.yaml; rename it*"),
    ],
)
def test_a_path_without_circuits_is_refused(project, path: str, message: str) -> None:
    (project.path / "empty").mkdir()
    project.circuit("good.yaml")
    project.circuit("good.circuit.yaml")
    result = project.gate(f"--forgetguard-circuits={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])
    assert project.judged() == []
