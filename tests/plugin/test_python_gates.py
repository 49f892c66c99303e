"""Gates written in Python: the fixture, the marker, and no silent pass without checkpoints."""

from __future__ import annotations

import re

import pytest
from exit_table import documented

from forgetguard.errors import SpecificationError
from pytest_forgetguard.backend import ModelBackend
from pytest_forgetguard.settings import Settings

ASSERTS = """
def test_it(forgetguard):
    forgetguard.assert_limit("{name}.circuit.yaml", "dcv.circuit", max=0.3)
"""


ONLY_MEASURED = "Python gates only measure (`judge`, `pair`), and no gate asserts a limit"


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


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("check('gone.circuit.yaml')", "SpecificationError"),
        ("judge('good.circuit.yaml', 'readout.drop')", "SpecificationError"),
        ("check('good.circuit.yaml', {'dcv.circuit': 7})", "SpecificationError"),
        ("assert_limit('broken.circuit.yaml', 'dcv.circuit')", "MeasurementError"),
        ("check('bad.circuit.yaml')", "GateFailure"),
    ],
)
def test_what_a_user_can_mend_is_told_at_the_tests_own_line(
    project, call: str, kind: str, workers: int
) -> None:
    for name in ("good", "bad", "broken"):
        project.circuit(f"{name}.circuit.yaml")
    project.python("test_gate.py", f"def test_it(forgetguard):\n    forgetguard.{call}\n")
    lines = project.gate("test_gate.py", workers=workers).outlines
    places = [line for line in lines if re.match(r"\S+\.py:\d+: ", line)]
    assert places == [f"test_gate.py:2: {kind}"]
    assert f">       forgetguard.{call}" in lines


def test_a_defect_of_ours_keeps_its_traceback(project) -> None:
    project.circuit("bug.circuit.yaml")
    project.python("test_gate.py", ASSERTS.format(name="bug"))
    result = project.gate("test_gate.py")
    result.stdout.fnmatch_lines(["*fixtures.py:*", "*TypeError: a defect*"])


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
    result = project.gate("test_gate.py")
    result.assert_outcomes(passed=1)
    assert result.ret == documented(ONLY_MEASURED)
    result.stdout.fnmatch_lines(
        [
            "*no limit asserted*UNGATED",
            "0 pass, 1 ungated",
            "forgetguard: UNGATED*: test_gate.py::test_it",
            "forgetguard: no gate asserted a limit*assert_limit*",
        ]
    )


@pytest.mark.parametrize(("name", "status"), [("good", 0), ("bad", 1), ("vague", 1)])
def test_a_verdict_is_true_only_where_it_is_a_pass(project, name: str, status: int) -> None:
    project.circuit("good-beside.circuit.yaml")
    project.circuit(f"{name}.circuit.yaml")
    project.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        f"    assert forgetguard.judge('{name}.circuit.yaml', 'dcv.circuit')\n",
    )
    assert project.gate("test_gate.py", "good-beside.circuit.yaml").ret == status


@pytest.mark.parametrize(
    "body",
    [
        "if False: forgetguard.assert_limit('bad.circuit.yaml', 'dcv.circuit')",
        "assert forgetguard.settings and forgetguard.circuit('bad.circuit.yaml')",
        "with pytest.raises(Exception): forgetguard.check('broken.circuit.yaml')",
    ],
    ids=["behind an if", "only read", "swallowed an error"],
)
def test_a_gate_that_reads_no_limit_fails(project, body: str, workers: int) -> None:
    for name in ("bad", "broken"):
        project.circuit(f"circuits/{name}.circuit.yaml")
    project.python(
        "circuits/test_gate.py", f"import pytest\ndef test_it(forgetguard):\n    {body}\n"
    )
    result = project.gate("circuits/test_gate.py", workers=workers)
    result.assert_outcomes(failed=1)
    assert result.ret == documented("a Python gate ends without having read a limit")
    result.stdout.fnmatch_lines(["*read no limit*forgetguard.assert_limit(...)*take the fixture*"])


def test_a_marked_test_that_reads_no_limit_fails_too(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_gate.py", "import pytest\n@pytest.mark.forgetguard\ndef test_it(): pass\n")
    project.gate().assert_outcomes(passed=1, failed=1)


def test_a_gate_that_only_measures_is_no_pass_but_may_stand_beside_one(
    project, workers: int
) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_own.py", "def test_own(forgetguard): assert forgetguard.pair\n")
    result = project.gate("--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented(
        "a Python gate only measures (`judge`, `pair`), UNGATED, beside limits that are kept"
    )
    result.stdout.fnmatch_lines(["1 pass, 1 ungated"])
    results = project.results()
    assert results["ungated"] == ["test_own.py::test_own"]
    assert [entry["id"] for entry in results["results"]] == ["good.circuit.yaml::good::dcv.circuit"]
    assert results["complete"] is True


BAD_MAXIMA = [True, -1, "0.1", float("nan"), float("inf"), 2]


@pytest.mark.parametrize("key", ["dcv.circuit", "accuracy.drop", "readout.drop", "dcv.head"])
@pytest.mark.parametrize("maximum", BAD_MAXIMA, ids=repr)
def test_a_maximum_is_held_to_the_rules_of_circuit_files(key: str, maximum: float) -> None:
    with pytest.raises(SpecificationError) as caught:
        ModelBackend(Settings("b", "t")).limit(key, maximum)
    assert key in str(caught.value)
    shown = f"{maximum:g}" if type(maximum) is int else repr(maximum)
    assert shown in str(caught.value)


@pytest.mark.parametrize("call", ["assert_limit", "judge", "check"])
def test_a_bad_maximum_in_a_test_is_misuse_and_measures_nothing(project, call: str) -> None:
    project.circuit("good.circuit.yaml")
    arguments = "{'dcv.circuit': 2}" if call == "check" else "'dcv.circuit', max=2"
    project.python(
        "test_gate.py",
        f"def test_it(forgetguard):\n    forgetguard.{call}('good.circuit.yaml', {arguments})\n",
    )
    result = project.gate("test_gate.py")
    assert result.ret == documented("a Python gate gives a maximum that no limit may have")
    result.stdout.fnmatch_lines(["*dcv.circuit: max must be below 1 *got 2*"])
    assert project.judged() == []


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
    result = project.gate("test_gate.py")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert project.judged() == ["good dcv.circuit"]


def test_what_a_fixture_asserts_counts_only_for_the_tests_that_use_it(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python(
        "test_gate.py",
        "import pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def verdict(forgetguard):\n"
        "    return forgetguard.assert_limit('good.circuit.yaml', 'dcv.circuit')\n"
        "@pytest.fixture\n"
        "def high(verdict): return verdict.estimate.high\n"
        "def test_one(high): assert high < 0.1\n"
        "def test_two(high): assert high < 0.2\n"
        "def test_without(forgetguard): pass\n",
    )
    project.gate("test_gate.py", "-v").stdout.fnmatch_lines(
        ["*::test_one PASSED*", "*::test_two PASSED*", "*::test_without FAILED*"]
    )


def test_a_fixture_set_up_again_is_judged_anew(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python(
        "test_gate.py",
        "import pytest\n"
        "@pytest.fixture(scope='module', params=[True, False], ids=['yes', 'no'])\n"
        "def gate(request, forgetguard):\n"
        "    if request.param: forgetguard.assert_limit('good.circuit.yaml', 'dcv.circuit')\n"
        "def test_it(gate): pass\n",
    )
    project.gate("test_gate.py", "-v").stdout.fnmatch_lines(
        ["*::test_it[[]yes[]] PASSED*", "*::test_it[[]no[]] FAILED*"]
    )
