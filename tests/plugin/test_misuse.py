"""A gate that is half given ends with exit status 4, what is wrong, and the next step."""

from __future__ import annotations

import pytest

FLAG = ["--forgetguard"]


@pytest.fixture
def gated(project):
    project.circuit("good.circuit.yaml")
    return project


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*FLAG, "base=b"], "*tuned missing (got base=b)*"),
        ([*FLAG, "tuned=t"], "*base missing (got tuned=t)*"),
        ([*FLAG], "*base and tuned missing*"),
        ([*FLAG, "reference=r"], "*base and tuned missing (got reference=r)*"),
        ([*FLAG, "base=b", ".", "tuned=t"], "*tuned missing*directly after the flag*"),
        ([*FLAG, "base=b", "tuned=t", "refrence=r"], "*unknown key 'refrence'*base, tuned*"),
        ([*FLAG, "BASE=b", "tuned=t"], "*unknown key 'BASE'*"),
        ([*FLAG, "base=b", "tuned="], "*tuned= is empty (an unset variable?)*"),
        ([*FLAG, "base=b", "tuned=t", "tuned=u"], "*tuned was given twice*'t'*'u'*"),
        ([*FLAG, "base=b", "tuned=t", "--forgetguard-base=c"], "*base was given twice*"),
        (["--forgetguard-base=b"], "*tuned missing*"),
        (["--forgetguard-base="], "*base= is empty*"),
        (["--forgetguard-json=out.json"], "*base and tuned missing*--forgetguard-json*"),
        (["--forgetguard-device=cpu"], "*base and tuned missing*"),
        (["--forgetguard-allow-same"], "*base and tuned missing*"),
        ([*FLAG, "base=b", "tuned=t", "--forgetguard-dtype=int8"], "*'int8'*float32*"),
        ([*FLAG, "base=b", "tuned=t", "--forgetguard-seed=-1"], "*'-1' is not a whole number*"),
        ([*FLAG, "base=b", "tuned=t", "--forgetguard-device="], "*-device is empty*"),
        ([*FLAG, "base=b", "tuned=t", "--forgetguard-circuits="], "*-circuits is empty*"),
        ([*FLAG, "base=b", "tuned=t", "--forgetguard-color"], "*unrecognized arguments*"),
        ([*FLAG, "base=b", "tuned=missing"], "*no checkpoint 'missing'; check the path*"),
    ],
)
def test_misuse_is_refused(gated, args: list[str], message: str) -> None:
    result = gated.run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert gated.judged() == []


def test_a_missing_checkpoint_starts_no_workers(gated) -> None:
    result = gated.run("--forgetguard", "base=b", "tuned=missing", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.no_fnmatch_line("*workers*")


def test_a_limit_against_a_missing_reference_is_refused(project) -> None:
    file = project.circuit("good.circuit.yaml")
    file.write_text(file.read_text() + "  dcv.circuit.over_reference: {max: 0.1}\n")
    result = project.gate()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*good.circuit.yaml:8: *needs a third checkpoint*"])
    assert project.run("--forgetguard", "base=b", "tuned=t", "reference=r").ret == 0


def test_two_circuits_of_one_name_are_refused(project, workers: int) -> None:
    project.circuit("a/good.circuit.yaml")
    project.circuit("b/good.circuit.yaml")
    result = project.gate(workers=workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    output = result.stdout.str() + result.stderr.str()
    assert "circuit 'good' has the name of the one in" in output
    assert project.judged() == []
