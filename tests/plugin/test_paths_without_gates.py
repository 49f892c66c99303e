"""Paths that hold no gate are refused: the bundled circuits would go green in their place."""

from __future__ import annotations

import pytest
from exit_table import documented

NOTHING_THERE = (
    "paths are given, or `--forgetguard-circuits`, and neither a circuit file nor a Python gate is "
    "there"
)


@pytest.fixture
def misnamed(project):
    """The bundled circuits fit, and the user's own file lacks the name of one."""
    project.circuit("fits/good.circuit.yaml")
    project.circuit("circuits/quick.yaml")
    return project


def output(result: pytest.RunResult) -> str:
    return result.stdout.str() + result.stderr.str()


def test_a_misnamed_file_is_told_and_nothing_else_is_run(misnamed, workers: int) -> None:
    result = misnamed.gate("circuits", "--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented(NOTHING_THERE)
    assert misnamed.judged() == []
    said = output(result)
    assert "no gate under circuits" in said
    assert "quick.circuit.yaml" in said
    assert "bundled with forgetguard are run where no path is given" in said
    assert misnamed.results()["complete"] is False


@pytest.mark.parametrize("args", [["circuits/quick.yaml"], ["--forgetguard-circuits=circuits"]])
def test_a_misnamed_file_named_or_in_a_named_folder(misnamed, args: list[str]) -> None:
    result = misnamed.gate(*args)
    assert result.ret == documented(NOTHING_THERE)
    assert "call it quick.circuit.yaml" in output(result)
    assert misnamed.judged() == []


def test_a_file_without_a_circuit_is_told_the_name_of_a_gate_file(misnamed) -> None:
    file = misnamed.path / "circuits" / "quick.yaml"
    file.write_text("forgetguard: 2\nlimits: {drift.weights: {max: 0.1}}\n")
    result = misnamed.gate("circuits")
    assert result.ret == documented(NOTHING_THERE)
    assert "call it quick.gate.yaml" in output(result).replace(f"{file.parent}/", "")


def test_a_misnamed_file_beside_others_is_told(misnamed) -> None:
    misnamed.circuit("circuits/good-one.circuit.yaml")
    said = output(misnamed.gate("circuits"))
    assert "NOT RUN" in said
    assert "quick.circuit.yaml" in said
    misnamed.path.joinpath("circuits", "quick.yaml").unlink()
    assert "NOT RUN" not in output(misnamed.gate("circuits"))


def test_renamed_as_it_says_the_file_is_run(misnamed) -> None:
    folder = misnamed.path / "circuits"
    (folder / "quick.yaml").rename(folder / "quick.circuit.yaml")
    assert misnamed.gate("circuits").ret == 0
    assert misnamed.judged() == ["quick dcv.circuit"]


def test_other_yaml_is_no_near_miss(misnamed) -> None:
    file = misnamed.path / "circuits" / "quick.yaml"
    file.write_text("services:\n  capability: x\n")
    result = misnamed.gate("circuits")
    assert result.ret == documented(NOTHING_THERE)
    assert "call it" not in output(result)


@pytest.mark.parametrize(
    "args", [["tests"], ["tests/test_plain.py::test_it"], ["--pyargs", "pack"]]
)
def test_ordinary_tests_by_path_are_no_gate(misnamed, args: list[str], monkeypatch) -> None:
    plain = "def test_it(): pass\n"
    misnamed.python("tests/test_plain.py", plain)
    misnamed.python("pack/__init__.py", "")
    misnamed.python("pack/test_plain.py", plain)
    monkeypatch.syspath_prepend(misnamed.path)
    assert misnamed.gate(*args).ret == documented(NOTHING_THERE)
    assert misnamed.judged() == []


@pytest.mark.parametrize(
    "args", [["tests"], ["tests/test_gate.py::test_it"], ["tests", "-k", "it"]], ids=" ".join
)
def test_a_python_gate_under_the_path_counts(misnamed, args: list[str]) -> None:
    misnamed.circuit("tests/data/good.circuit.yaml")
    misnamed.python(
        "tests/test_gate.py",
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('data/good.circuit.yaml', 'dcv.circuit')\n",
    )
    result = misnamed.gate(*args, "--ignore=tests/data")
    assert result.ret == 0
    assert misnamed.judged() == ["good dcv.circuit"]


def test_a_gate_that_cannot_be_imported_is_told_as_such(misnamed) -> None:
    misnamed.python(
        "tests/test_gate.py", "import nothing_of_that_name\ndef test_it(forgetguard): 0"
    )
    result = misnamed.gate("tests")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "nothing_of_that_name" in result.stdout.str()
    assert misnamed.judged() == []


def test_last_failed_may_leave_every_gate_out_and_is_no_pass(misnamed) -> None:
    misnamed.circuit("good.circuit.yaml")
    misnamed.python(
        "tests/test_gate.py",
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('good.circuit.yaml', 'dcv.circuit')\n",
    )
    plain = "def test_it(): assert not Path('broken').exists()\n"
    misnamed.python("tests/test_plain.py", f"from pathlib import Path\n{plain}")
    (misnamed.path / "broken").touch()
    misnamed.gate("tests").assert_outcomes(passed=1, failed=1)
    (misnamed.path / "broken").unlink()
    result = misnamed.gate("tests", "--lf")
    assert result.ret == documented(
        "all gates were deselected (`-k`, `-m`, `--deselect`) or removed by a conftest, even if "
        "other tests passed"
    )
    assert misnamed.judged() == ["good dcv.circuit"]
