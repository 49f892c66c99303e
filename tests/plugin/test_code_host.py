"""In GitHub Actions a run appends its summary and annotates what is not kept; elsewhere neither."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project) -> Path:
    target = tmp_path / "summary.md"
    target.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
    return target


def test_the_summary_is_appended_and_each_circuit_annotated_once(
    project, summary: Path, workers: int
) -> None:
    project.circuit("gates/bad.circuit.yaml", dcv_circuit=0.1, readout_drop=0.1)
    project.circuit("gates/good.circuit.yaml")
    result = project.gate(workers=workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    told = summary.read_text()
    assert told.startswith("before\n### ❌ FAIL: ")
    assert told.count("### ") == 1
    lines = [line for line in result.outlines if line.startswith("::")]
    assert len(lines) == 1
    assert lines[0].startswith("::error file=gates/bad.circuit.yaml,line=7,title=forgetguard FAIL")


def test_a_run_that_passes_annotates_nothing(project, summary: Path) -> None:
    project.circuit("good.circuit.yaml")
    result = project.gate()
    assert result.ret == 0
    assert "✅ pass: 1 limit kept" in summary.read_text()
    assert not [line for line in result.outlines if line.startswith("::")]


def test_the_summary_names_the_status_that_the_process_ends_with(project, summary: Path) -> None:
    (project.path / "bad.circuit.yaml").write_text("forgetguard: 2\ncapability: [\n")
    result = project.gate()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "the run ended with status 4" in summary.read_text()


def test_another_plugin_that_annotates_is_left_to_do_it(project, summary: Path) -> None:
    project.more_conftest(
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(object(), 'pytest_github_actions_annotate_failures')\n"
    )
    project.circuit("bad.circuit.yaml")
    result = project.gate()
    assert not [line for line in result.outlines if line.startswith("::")]
    assert "FAIL" in summary.read_text()


def test_elsewhere_nothing_is_written(
    project, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    project.circuit("bad.circuit.yaml")
    result = project.gate()
    assert summary.read_text() == "before\n"
    assert not [line for line in result.outlines if line.startswith("::")]


def test_a_summary_that_cannot_be_written_does_not_change_the_verdict(
    project, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary.parent / "nowhere" / "summary.md"))
    project.circuit("good.circuit.yaml")
    result = project.gate()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["forgetguard: the step's summary was not written: *"])
