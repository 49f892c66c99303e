"""`--forgetguard-html`: the page of the run, whole, and never a stale one."""

from __future__ import annotations

import json

import pytest


def test_the_page_is_that_of_the_run(project, workers: int) -> None:
    project.circuit("bad.circuit.yaml")
    project.circuit("good.circuit.yaml")
    result = project.gate("--forgetguard-html=page.html", workers=workers)
    result.stdout.fnmatch_lines(["page: *page.html"])
    page = (project.path / "page.html").read_text()
    assert "1 of 2 limits broken" in page
    assert "INCOMPLETE" not in page
    assert "<td><code>abc</code></td>" in page  # the fingerprint, without a results file
    assert not list(project.path.glob("*.json"))


def test_the_command_makes_the_same_page_of_the_results_file(project) -> None:
    from forgetguard.cli import main

    project.circuit("bad.circuit.yaml")
    project.gate("--forgetguard-html=page.html", "--forgetguard-json=out.json")
    again = project.path / "again.html"
    assert main(["report", str(project.path / "out.json"), "-o", str(again)]) == 0
    page = (project.path / "page.html").read_text()
    assert again.read_text().splitlines() == page.splitlines()
    checksum = json.loads((project.path / "out.json").read_text())["checksum"]
    assert checksum["value"] in page


def test_an_older_page_does_not_survive_a_run_that_dies(project) -> None:
    project.circuit("crash.circuit.yaml")
    (project.path / "page.html").write_text("all is well")
    project.gate_in_subprocess("--forgetguard-html=page.html")
    page = (project.path / "page.html").read_text()
    assert "INCOMPLETE" in page
    assert "all is well" not in page


@pytest.mark.parametrize("target", ["nowhere/page.html", "folder"])
def test_a_path_that_cannot_be_written_is_refused_at_the_start(project, target: str) -> None:
    project.circuit("good.circuit.yaml")
    (project.path / "folder").mkdir()
    result = project.gate(f"--forgetguard-html={target}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*cannot write the page*"])
    assert project.log() == []


def test_a_page_that_cannot_be_written_at_the_end_is_no_pass(project) -> None:
    (project.path / "out").mkdir()
    project.circuit("good.circuit.yaml")
    project.python(
        "test_remove.py",
        "import shutil\ndef test_it(): shutil.rmtree('out')\n",
    )
    result = project.gate("--forgetguard-html=out/page.html", "--forgetguard-json=out.json")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["forgetguard: the page *page.html was not written:*"])
    result.stdout.fnmatch_lines(["results: *out.json"])
    result.stdout.no_fnmatch_line("page: *")


def test_the_page_does_not_take_the_place_of_the_results(project) -> None:
    project.circuit("good.circuit.yaml")
    result = project.gate("--forgetguard-html=out", "--forgetguard-json=out")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*give the page another path*"])


def test_the_page_may_stand_in_the_ini_file_and_is_no_part_of_the_command(project) -> None:
    project.circuit("bad.circuit.yaml")
    project.pytester.makeini("[pytest]\nforgetguard_html = page.html\n")
    result = project.gate()
    assert (project.path / "page.html").is_file()
    result.stdout.no_fnmatch_line("*run only this: *html*")
