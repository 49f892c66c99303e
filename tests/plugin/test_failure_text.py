"""A failed gate explains itself without a traceback, with and without workers."""

from __future__ import annotations

import pytest


@pytest.fixture
def failing(project):
    project.circuit("circuits/bad.circuit.yaml", accuracy_drop=0.02, dcv_circuit=0.1)
    return project


def test_it_shows_limit_number_heads_prompts_and_place(failing, workers: int) -> None:
    result = failing.gate(workers=workers)
    result.stdout.fnmatch_lines(
        [
            "*FAILURES*",
            "*bad: dcv.circuit*",
            "FAIL: DCV 0.55 [[]0.5, 0.6[]], allowed 0.1 (bad dcv.circuit)",
            "*64 prompt pairs, 90 % interval",
            "*worst heads",
            "*L2H2  DCV 0.55 [[]0.5, 0.6[]]  importance 1.2 [[]1, 1.4[]]",
            "*2 of 66*",
            "*prompt pairs hurt most",
            "*'When Mary'",
            "*answer ' John' against ' Mary': readout 4.1 -> 0.9 (1.2 *",
            "*declared in *bad.circuit.yaml:8",
            "*run only this: pytest --forgetguard base=b tuned=t "
            "circuits/bad.circuit.yaml::bad::dcv.circuit",
            "FAILED circuits/bad.circuit.yaml::bad::dcv.circuit - FAIL: DCV*",
        ],
        consecutive=False,
    )
    assert "Traceback" not in result.stdout.str()
    assert ".py:" not in result.stdout.str()


def test_an_abstention_is_labelled(project) -> None:
    project.circuit("vague.circuit.yaml")
    result = project.gate()
    result.stdout.fnmatch_lines(["ABSTAIN: *3 pairs*2 dropped* (vague dcv.circuit)"])
    result.stdout.no_fnmatch_line("*prompt pairs hurt most*")


def test_a_measurement_error_is_its_message(project, workers: int) -> None:
    project.circuit("broken.circuit.yaml")
    result = project.gate(workers=workers)
    result.stdout.fnmatch_lines(
        ["ERROR: logits are not finite in layer 2; try dtype float32", "*run only this: pytest*"]
    )
    assert ".py:" not in result.stdout.str()


def test_a_defect_of_ours_keeps_its_traceback(project) -> None:
    project.circuit("bug.circuit.yaml")
    project.gate().stdout.fnmatch_lines(["*TypeError: a defect*"])


def test_the_line_to_run_again_does_so_with_the_options_in_force(project, monkeypatch) -> None:
    project.circuit("my circuits/bad.circuit.yaml", dcv_circuit=0.1, dcv_head=0.1)
    project.pytester.makeini("[pytest]\nforgetguard_seed = 5\n")
    (project.path / "elsewhere").mkdir()
    monkeypatch.chdir(project.path / "elsewhere")
    result = project.run(
        "../my circuits",
        "--forgetguard",
        "base=b",
        "tuned=./my runs/$1",
        "reference=r",
        "--forgetguard-dtype=bfloat16",
        "--forgetguard-device=cuda:0",
        "--forgetguard-trust-remote-code",
    )
    [line, _] = [line for line in result.outlines if "run only this" in line]
    words = project.words(line.partition("run only this: ")[2])
    assert words[0] == "pytest"
    assert {"tuned=./my runs/$1", "--forgetguard-seed=5"} <= set(words)
    assert {"--forgetguard-dtype=bfloat16", "--forgetguard-trust-remote-code"} <= set(words)
    before = len(project.judged())
    project.run(*words[1:]).assert_outcomes(failed=1)
    assert project.judged()[before:] == ["bad dcv.circuit"]


def test_the_place_of_a_failure_is_the_limits_line(failing) -> None:
    failing.more_conftest(
        "def pytest_runtest_logreport(report):\n"
        "    if report.when == 'call': print('AT', report.location[:2])\n",
    )
    result = failing.gate("-s")
    assert "AT ('circuits/bad.circuit.yaml', 7)" in result.stdout.str()
