"""One item per declared limit, with node ids that select like any test's."""

from __future__ import annotations

import pytest

IOI = "circuits/good-ioi.circuit.yaml::good-ioi"


@pytest.fixture
def gated(project):
    project.circuit("circuits/good-ioi.circuit.yaml", dcv_circuit=0.1, accuracy_drop=0.02)
    project.circuit("circuits/bad-facts.circuit.yaml")
    project.python("test_plain.py", "def test_plain(): pass")
    return project


def test_node_ids_name_file_circuit_and_limit(gated) -> None:
    result = gated.gate("--collect-only", "-q")
    assert result.ret == 0
    assert gated.collected(result) == [
        "circuits/bad-facts.circuit.yaml::bad-facts::dcv.circuit",
        f"{IOI}::dcv.circuit",
        f"{IOI}::accuracy.drop",
        "test_plain.py::test_plain",
    ]


def test_collect_only_measures_and_writes_nothing(gated) -> None:
    gated.gate("--collect-only", "--forgetguard-json=out.json")
    assert gated.judged() == []
    assert not (gated.path / "out.json").exists()


def test_a_node_id_selects_one_limit(gated, workers: int) -> None:
    result = gated.gate(f"{IOI}::accuracy.drop", workers=workers)
    assert result.ret == 0
    assert gated.judged() == ["good-ioi accuracy.drop"]


def test_a_circuit_can_be_selected_whole(gated) -> None:
    assert gated.gate(IOI).ret == 0
    assert gated.judged() == ["good-ioi dcv.circuit", "good-ioi accuracy.drop"]


def test_k_selects_by_circuit_and_limit(gated) -> None:
    assert gated.gate("-k", "ioi and dcv").ret == 0
    assert gated.judged() == ["good-ioi dcv.circuit"]


def test_the_marker_selects_gates_alone(gated) -> None:
    result = gated.gate("-m", "forgetguard")
    result.assert_outcomes(passed=2, failed=1, deselected=1)


def test_last_failed_runs_what_failed(gated) -> None:
    gated.gate().assert_outcomes(passed=3, failed=1)
    gated.gate("--lf").assert_outcomes(failed=1)
    assert gated.judged()[-1:] == ["bad-facts dcv.circuit"]


def test_python_tests_under_the_paths_run_as_ever(gated) -> None:
    gated.gate().assert_outcomes(passed=3, failed=1)
    gated.gate("circuits").assert_outcomes(passed=2, failed=1)


def test_the_session_is_opened_over_the_selected_circuits_only(gated) -> None:
    gated.gate("-k", "ioi")
    assert [line for line in gated.log() if line.startswith("open")] == ["open good-ioi"]


def test_unreadable_circuit_files_are_told_with_their_line(project, workers: int) -> None:
    project.circuit("good.circuit.yaml")
    file = project.circuit("bad.circuit.yaml")
    file.write_text(file.read_text().replace("readout: logit_diff", "readout: logits"))
    result = project.gate(workers=workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["*bad.circuit.yaml:4: unknown readout 'logits'*"])
    assert "Traceback" not in result.stdout.str()
    assert "schema.py" not in result.stdout.str()


def test_an_unreadable_file_counts_even_if_the_others_are_run(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("void.circuit.yaml").write_text("")
    result = project.gate("--continue-on-collection-errors")
    assert project.judged() == ["good dcv.circuit"]
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("given", ["file", "folder", "gate"])
def test_a_circuit_file_outside_of_the_root_folder_keeps_its_name(
    project, workers: int, given: str
) -> None:
    outside = project.circuit("elsewhere/good.circuit.yaml")
    (project.path / "root").mkdir()
    gate = f"{outside.as_posix()}::good::dcv.circuit"
    result = project.gate(
        f"--rootdir={project.path / 'root'}",
        f"--confcutdir={project.path}",
        "--forgetguard-json=out.json",
        {"file": str(outside), "folder": str(outside.parent), "gate": gate}[given],
        workers=workers,
    )
    assert result.ret == 0
    results = project.results()
    assert [one["id"] for one in results["results"]] == [gate]
    assert results["not_run"] == []
