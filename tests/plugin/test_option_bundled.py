"""`--forgetguard-bundled`: the core set of the bundled circuits of a base, or all of them."""

from __future__ import annotations

import pytest

LINE = "forgetguard: NOT JUDGED, not of the core set: good-2, good-3 (--forgetguard-bundled all *)"


@pytest.fixture
def marked(project):
    """A project without circuits, on a base of whose bundled ones one is marked."""
    project.circuit("fits/good.circuit.yaml", core=True)
    project.circuit("fits/good-2.circuit.yaml")
    project.circuit("fits/good-3.circuit.yaml")
    project.pytester.makeini("[pytest]\ntestpaths = here\n")
    (project.path / "here").mkdir()
    return project


def test_a_run_that_names_none_judges_the_core_set_and_says_what_it_left_out(
    marked, workers: int
) -> None:
    result = marked.gate("--forgetguard-json=out.json", workers=workers)
    assert result.ret == 0
    assert marked.judged() == ["good dcv.circuit"]
    result.stdout.fnmatch_lines([LINE])
    results = marked.results()
    assert results["left_out"] == ["good-2", "good-3"]
    assert results["options"]["bundled"] == "core"


def test_it_says_so_however_quiet_it_is(marked) -> None:
    marked.gate("-qq").stdout.fnmatch_lines([LINE])


@pytest.mark.parametrize("given", ["option", "ini"])
def test_all_of_them_are_judged_where_that_is_asked_for(marked, given: str) -> None:
    if given == "ini":
        marked.pytester.makeini("[pytest]\ntestpaths = here\nforgetguard_bundled = all\n")
    options = ["--forgetguard-bundled=all"] if given == "option" else []
    result = marked.gate("--forgetguard-json=out.json", *options)
    assert sorted(marked.judged()) == [
        f"{name} dcv.circuit" for name in ("good", "good-2", "good-3")
    ]
    result.stdout.no_fnmatch_line("*not of the core set*")
    assert marked.results()["left_out"] == []


def test_all_are_judged_where_none_is_marked(marked) -> None:
    marked.circuit("fits/good.circuit.yaml")
    result = marked.gate()
    assert len(marked.judged()) == 3
    result.stdout.no_fnmatch_line("*not of the core set*")


def test_files_that_somebody_names_are_judged_marked_or_not(marked) -> None:
    result = marked.gate("fits")
    assert len(marked.judged()) == 3
    result.stdout.no_fnmatch_line("*not of the core set*")


@pytest.mark.parametrize("value", ["most", "2"])
def test_another_value_is_refused(marked, value: str) -> None:
    result = marked.gate(f"--forgetguard-bundled={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--forgetguard-bundled: '{value}' is none of core, all*"])
