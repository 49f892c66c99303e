"""Gates written in Python: the fixture, the marker, and no silent pass without checkpoints."""

from __future__ import annotations

import pytest

ASSERTS = """
def test_it(forgetguard):
    forgetguard.assert_limit("{name}.circuit.yaml", "dcv.circuit", max=0.3)
"""


def test_a_kept_limit_passes_and_is_in_table_and_file(project, workers: int) -> None:
    project.circuit("tests/good.circuit.yaml")
    project.python("tests/test_gate.py", ASSERTS.format(name="good"))
    args = ("tests/test_gate.py", "--forgetguard-json=out.json")
    result = project.gate(*args, workers=workers)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["good * dcv.circuit * <= 0.3 * pass"])
    results = project.results()
    assert results["complete"] is True
    [entry] = results["results"]
    assert entry["id"] == "tests/test_gate.py::test_it"
    assert entry["verdicts"][0]["bound"] == 0.3


@pytest.mark.parametrize(("name", "label"), [("bad", "FAIL"), ("vague", "ABSTAIN")])
def test_any_other_verdict_fails_the_test(project, name: str, label: str) -> None:
    project.circuit(f"{name}.circuit.yaml")
    project.python("test_gate.py", ASSERTS.format(name=name))
    result = project.gate("test_gate.py")
    assert result.ret == 1
    result.stdout.fnmatch_lines([f"*GateFailure: {label}*", f"*dcv.circuit*{label}*"])
    assert "fixtures.py" not in result.stdout.str()


def test_a_swallowed_failure_is_still_no_pass(project) -> None:
    project.circuit("bad.circuit.yaml")
    project.python(
        "test_gate.py",
        "import pytest\n"
        "def test_it(forgetguard):\n"
        "    with pytest.raises(AssertionError):\n"
        "        forgetguard.assert_limit('bad.circuit.yaml', 'dcv.circuit')\n",
    )
    result = project.gate("test_gate.py")
    result.assert_outcomes(passed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["forgetguard: not passed: test_gate.py::test_it (fail)"])


def test_judge_returns_any_verdict_and_gates_nothing(project) -> None:
    project.circuit("bad.circuit.yaml")
    project.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    verdict = forgetguard.judge('bad.circuit.yaml', 'dcv.circuit')\n"
        "    assert verdict.outcome.value == 'fail'\n"
        "    assert verdict.bound == 0.1\n"
        "    assert forgetguard.pair == 'the pair b and t'\n",
    )
    assert project.gate("test_gate.py").ret == 0


def test_check_measures_every_limit_before_it_fails(project) -> None:
    project.circuit("bad.circuit.yaml", dcv_circuit=0.1, accuracy_drop=0.02)
    project.python(
        "test_gate.py",
        "def test_it(forgetguard):\n    forgetguard.check('bad.circuit.yaml')\n",
    )
    assert project.gate("test_gate.py").ret == 1
    assert project.judged() == ["bad dcv.circuit", "bad accuracy.drop"]


def test_check_takes_limits_of_its_own(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    [verdict] = forgetguard.check('good.circuit.yaml', {'dcv.head': 0.4})\n"
        "    assert (verdict.limit, verdict.bound) == ('dcv.head', 0.4)\n",
    )
    assert project.gate("test_gate.py").ret == 0


def test_the_marker_names_circuits_to_be_measured_together(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("more/good-2.circuit.yaml")
    project.python(
        "test_gate.py",
        "import pytest\n"
        "@pytest.mark.forgetguard(circuit='more/good-2.circuit.yaml')\n"
        "def test_it(forgetguard):\n"
        "    forgetguard.check('more/good-2.circuit.yaml')\n",
    )
    assert project.gate("good.circuit.yaml", "test_gate.py").ret == 0
    assert [line for line in project.log() if line.startswith("open")] == ["open good good-2"]


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("circuit='gone.circuit.yaml'", "there is no circuit file gone.circuit.yaml"),
        ("circuits='gone.circuit.yaml'", "takes circuit=PATH"),
    ],
)
def test_a_marker_that_names_nothing_is_misuse(project, marker: str, message: str) -> None:
    project.python(
        "test_gate.py",
        f"import pytest\n@pytest.mark.forgetguard({marker})\ndef test_it(): pass\n",
    )
    result = project.gate()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


def test_without_checkpoints_gates_fail_and_are_not_skipped(project) -> None:
    project.python(
        "test_gate.py",
        "import pytest\n"
        "def test_fixture(forgetguard): pass\n"
        "@pytest.mark.forgetguard\n"
        "def test_marker(): pass\n"
        "def test_other(): pass\n",
    )
    result = project.run()
    assert result.ret == 1
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*this gate needs checkpoints*-m 'not forgetguard'*"])
    project.run("-m", "not forgetguard").assert_outcomes(passed=1, deselected=2)


def test_a_skipped_gate_is_no_pass(project) -> None:
    project.python(
        "test_gate.py",
        "import pytest\ndef test_it(forgetguard): pytest.skip('not today')\n",
    )
    result = project.gate()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["forgetguard: not passed: test_gate.py::test_it (skipped)"])


def test_the_fixture_serves_fixtures_of_wider_scope(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python(
        "test_gate.py",
        "import pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def verdict(forgetguard):\n"
        "    return forgetguard.assert_limit('good.circuit.yaml', 'dcv.circuit')\n"
        "def test_one(verdict): assert verdict.estimate.high < 0.1\n"
        "def test_two(verdict): assert verdict.estimate.n == 64\n",
    )
    project.gate("test_gate.py").assert_outcomes(passed=2)
    assert project.judged() == ["good dcv.circuit"]
