"""Where nothing is there to gate on, the bundled circuits that fit the base are run."""

from __future__ import annotations

import pytest
from exit_table import documented

BUNDLED = "forgetguard_circuits/good.circuit.yaml::good::dcv.circuit"


@pytest.fixture
def empty(project):
    """A project without circuits; the fake takes the folder `fits` for the bundled ones, which lies
    outside of `testpaths`."""
    project.circuit("fits/good.circuit.yaml")
    project.pytester.makeini("[pytest]\ntestpaths = here\n")
    (project.path / "here").mkdir()
    return project


def test_they_run_in_an_empty_directory(empty, workers: int) -> None:
    result = empty.gate("--forgetguard-json=out.json", workers=workers)
    assert result.ret == 0
    assert empty.judged() == ["good dcv.circuit"]
    assert empty.results()["circuits_from"] == "those bundled with forgetguard"


def test_their_node_ids_are_short(empty) -> None:
    assert empty.collected(empty.gate("--co", "-q")) == [BUNDLED]


def test_k_and_last_failed_work_on_them(empty) -> None:
    empty.circuit("fits/bad.circuit.yaml")
    empty.gate("-k", "good").assert_outcomes(passed=1, deselected=1)
    empty.gate().assert_outcomes(passed=1, failed=1)
    empty.gate("--lf").assert_outcomes(failed=1, deselected=1)


def test_python_tests_run_beside_them(empty) -> None:
    empty.python("here/test_plain.py", "def test_it(): pass")
    empty.gate().assert_outcomes(passed=2)


def test_any_circuit_of_the_users_own_replaces_them(empty) -> None:
    empty.circuit("here/good-own.circuit.yaml")
    empty.gate()
    assert empty.judged() == ["good-own dcv.circuit"]


def test_a_gate_in_python_replaces_them(empty) -> None:
    empty.python("here/test_gate.py", "def test_it(forgetguard): assert forgetguard.pair")
    empty.gate().assert_outcomes(passed=1)
    assert empty.judged() == []


def test_none_that_fits_is_misuse(project, workers: int) -> None:
    project.python("test_plain.py", "def test_it(): pass")
    result = project.gate(workers=workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    output = result.stdout.str() + result.stderr.str()
    assert "none of the 3 bundled circuits fits base=b" in output
    assert "--forgetguard-circuits PATH" in output


def test_a_circuit_beside_a_selected_test_is_not_under_the_path(empty) -> None:
    empty.circuit("here/bad.circuit.yaml")
    empty.python("here/test_plain.py", "def test_it(): pass")
    assert empty.gate("here/test_plain.py").ret == pytest.ExitCode.USAGE_ERROR
    assert empty.judged() == []


def test_from_another_folder_than_the_root_they_run_too(empty, monkeypatch) -> None:
    monkeypatch.chdir(empty.path / "here")
    assert empty.gate().ret == 0
    assert empty.judged() == ["good dcv.circuit"]


LACKING = "forgetguard_circuits/lacking.circuit.yaml::lacking::dcv.circuit"


def test_what_the_base_has_not_is_skipped_with_one_line(empty, workers: int) -> None:
    empty.circuit("fits/lacking.circuit.yaml")
    result = empty.gate("--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented(
        "bundled circuits that nobody named: the base has not a capability, and the others are kept"
    )
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["forgetguard: NOT JUDGED, the base cannot do it, *: lacking"])
    results = empty.results()
    assert results["not_had"] == [LACKING]
    assert {one["id"]: one["outcome"] for one in results["results"]} == {
        BUNDLED: "pass",
        LACKING: "not_had",
    }


def test_prompts_that_do_not_fit_the_tokenizer_are_an_error_of_a_file_that_was_named(empty) -> None:
    empty.circuit("fits/misfit.circuit.yaml")
    result = empty.gate("--forgetguard-json=out.json")
    assert result.ret == 0
    assert empty.results()["not_had"] == [LACKING.replace("lacking", "misfit")]
    assert empty.gate("fits").ret == 1


def test_a_base_that_has_none_of_them_is_no_pass(empty, workers: int) -> None:
    (empty.path / "fits/good.circuit.yaml").unlink()
    empty.circuit("fits/lacking.circuit.yaml")
    result = empty.gate(workers=workers)
    assert result.ret == documented("the base has the capability of no bundled circuit")
    result.stdout.fnmatch_lines(["forgetguard: the base has none of the capabilities*"])


def test_other_abstentions_of_bundled_circuits_fail_the_run(empty) -> None:
    empty.circuit("fits/vague.circuit.yaml")
    assert empty.gate().ret == 1


@pytest.mark.parametrize("given", ["fits", "--forgetguard-circuits=fits"])
def test_a_circuit_that_somebody_named_is_no_default(empty, given: str) -> None:
    """Its file says that a release must keep the capability."""
    empty.circuit("fits/lacking.circuit.yaml")
    assert empty.gate(given, "-p", "no:cacheprovider").ret == documented(
        "a verdict abstains: not measurable, or not decided"
    )


def test_a_failure_beside_what_the_base_has_not_fails_the_run(empty) -> None:
    empty.circuit("fits/lacking.circuit.yaml")
    empty.circuit("fits/bad.circuit.yaml")
    assert empty.gate().ret == 1
