"""`--forgetguard-allow-abstain`: what cannot be measured does not fail the run, and is shouted."""

from __future__ import annotations

import pytest
from exit_table import documented

ALLOW = "--forgetguard-allow-abstain"
JSON = "--forgetguard-json=out.json"
VAGUE = "vague.circuit.yaml::vague::dcv.circuit"


@pytest.fixture
def gated(project):
    project.circuit("good.circuit.yaml")
    project.circuit("vague.circuit.yaml")
    return project


def test_an_abstention_beside_a_pass(gated, workers: int) -> None:
    result = gated.gate(ALLOW, JSON, workers=workers)
    assert result.ret == documented(
        "`--forgetguard-allow-abstain`: some limits cannot be judged, one or more are kept"
    )
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["vague * ABSTAIN", f"forgetguard: ALLOWED TO ABSTAIN (--forgetguard-allow-*: {VAGUE}"]
    )


def test_the_results_file_says_what_was_allowed(gated, workers: int) -> None:
    gated.gate(ALLOW, JSON, workers=workers)
    results = gated.results()
    assert results["allowed_to_abstain"] == [VAGUE]
    assert results["options"]["allow_abstain"] is True
    assert {entry["id"]: entry["outcome"] for entry in results["results"]}[VAGUE] == "abstain"


def test_it_is_shouted_even_with_qq(gated) -> None:
    result = gated.gate(ALLOW, "-qq")
    result.stdout.fnmatch_lines([f"forgetguard: ALLOWED TO ABSTAIN*: {VAGUE}"])


def test_without_it_nothing_is_allowed(gated) -> None:
    assert gated.gate(JSON).ret == documented("a verdict abstains: not measurable, or not decided")
    assert gated.results()["allowed_to_abstain"] == []


def test_a_run_of_abstentions_alone_is_no_pass(project, workers: int) -> None:
    project.circuit("vague.circuit.yaml")
    result = project.gate(ALLOW, workers=workers)
    assert result.ret == documented("every limit abstains, with `--forgetguard-allow-abstain` too")
    result.stdout.fnmatch_lines(["forgetguard: every gate abstained: nothing was shown to be kept"])


@pytest.mark.parametrize("kind", ["bad", "broken", "bug"])
def test_fails_and_errors_are_no_abstentions(gated, kind: str) -> None:
    gated.circuit(f"{kind}.circuit.yaml")
    assert gated.gate(ALLOW).ret == documented("a limit is exceeded")


def test_what_was_measured_and_is_undecided_is_not_allowed(gated, workers: int) -> None:
    """Else a wide interval, or a family of many limits, would turn a FAIL into exit status 0."""
    gated.circuit("wide.circuit.yaml")
    result = gated.gate(ALLOW, JSON, "--forgetguard-family=1000", workers=workers)
    assert result.ret == documented(
        "`--forgetguard-allow-abstain`: an interval holds the limit, so it is not decided"
    )
    result.assert_outcomes(passed=1, skipped=1, failed=1)
    assert gated.results()["allowed_to_abstain"] == [VAGUE]


def test_a_python_gate_may_not_abstain_on_what_is_undecided(gated) -> None:
    gated.circuit("wide.circuit.yaml")
    gated.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('wide.circuit.yaml', 'dcv.circuit')\n",
    )
    assert gated.gate("test_gate.py", "good.circuit.yaml", ALLOW, JSON).ret == 1
    assert gated.results()["allowed_to_abstain"] == []


def test_a_python_gate_goes_on_after_an_abstention(gated, workers: int) -> None:
    gated.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('vague.circuit.yaml', 'dcv.circuit')\n"
        "    forgetguard.assert_limit('good.circuit.yaml', 'dcv.circuit')\n",
    )
    result = gated.gate("test_gate.py", "good.circuit.yaml", ALLOW, JSON, workers=workers)
    assert result.ret == 0
    assert gated.results()["allowed_to_abstain"] == ["test_gate.py::test_it"]
    assert "good dcv.circuit" in gated.judged()


def test_a_python_gate_that_also_fails_is_no_pass(gated) -> None:
    gated.circuit("bad.circuit.yaml")
    gated.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('vague.circuit.yaml', 'dcv.circuit')\n"
        "    forgetguard.assert_limit('bad.circuit.yaml', 'dcv.circuit')\n",
    )
    assert gated.gate("test_gate.py", ALLOW).ret == 1


def test_the_ini_file_can_allow_it(gated) -> None:
    gated.pytester.makeini("[pytest]\nforgetguard_allow_abstain = true\n")
    assert gated.gate().ret == 0
