"""The flag works as written: paths on either side, from addopts, and in workers."""

from __future__ import annotations

import pytest


@pytest.fixture
def gated(project):
    project.circuit("circuits/good.circuit.yaml")
    project.circuit("others/good-2.circuit.yaml")
    return project


def assert_ran(project, result, *circuits: str) -> None:
    assert result.ret == 0
    assert sorted(project.judged()) == sorted(f"{circuit} dcv.circuit" for circuit in circuits)


def test_paths_may_follow_the_pairs(gated, workers: int) -> None:
    result = gated.gate("circuits", workers=workers)
    assert_ran(gated, result, "good")


def test_paths_may_come_first(gated) -> None:
    result = gated.run("circuits", "--forgetguard", "base=b", "tuned=t")
    assert_ran(gated, result, "good")


def test_without_paths_everything_below_is_run(gated) -> None:
    assert_ran(gated, gated.gate(), "good", "good-2")


def test_the_pairs_may_come_in_any_order_with_a_reference(gated) -> None:
    result = gated.run("--forgetguard", "reference=r", "tuned=t", "base=b", "circuits")
    assert_ran(gated, result, "good")
    result.stdout.fnmatch_lines(["forgetguard: base=b tuned=t reference=r"])


def test_values_may_hold_equals_signs_and_revisions(gated) -> None:
    result = gated.run("--forgetguard", "base=org/name@v1", "tuned=./runs/lr=1e-5", "circuits")
    assert_ran(gated, result, "good")
    result.stdout.fnmatch_lines(["forgetguard: base=org/name@v1 tuned=./runs/lr=1e-5"])


def test_the_explicit_options_say_the_same(gated) -> None:
    result = gated.run(
        "--forgetguard-base=b", "--forgetguard-tuned", "t", "--forgetguard-reference=r", "circuits"
    )
    assert_ran(gated, result, "good")
    result.stdout.fnmatch_lines(["forgetguard: base=b tuned=t reference=r"])


def test_the_same_value_twice_is_no_contradiction(gated) -> None:
    result = gated.gate("--forgetguard-base=b", "circuits")
    assert_ran(gated, result, "good")


def test_the_flag_works_in_ini_addopts(gated, workers: int) -> None:
    gated.pytester.makeini("[pytest]\naddopts = --forgetguard base=b tuned=t\n")
    result = gated.run("circuits", *(["-n2"] if workers else []))
    assert_ran(gated, result, "good")


def test_the_flag_works_in_the_environment(gated, workers: int, monkeypatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--forgetguard base=b tuned=t")
    result = gated.run("circuits", *(["-n2"] if workers else []))
    assert_ran(gated, result, "good")


def test_testpaths_and_their_conftests_are_still_found(gated) -> None:
    gated.pytester.makeini("[pytest]\ntestpaths = circuits\n")
    gated.python("circuits/conftest.py", "def pytest_addoption(parser): parser.addoption('--own')")
    assert_ran(gated, gated.gate("--own=1"), "good")
