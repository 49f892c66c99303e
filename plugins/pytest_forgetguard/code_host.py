"""In GitHub Actions: the run in the step's summary, and what is not kept as annotations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_forgetguard import results_file
from pytest_forgetguard.state import RUN

if TYPE_CHECKING:
    from pytest_forgetguard.state import Run

_THEIRS = "pytest_github_actions_annotate_failures"  # a plugin that annotates every failure


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Append the summary, and print the annotations, each at the start of a line."""
    run = config.stash[RUN]
    outside = os.environ.get("GITHUB_ACTIONS") != "true"
    if outside or run.worker or config.option.collectonly:
        return
    for line in _lines(run, exitstatus, config.pluginmanager.hasplugin(_THEIRS)):
        terminalreporter.ensure_newline()
        terminalreporter.write_line(line)


def _lines(run: Run, exitstatus: int, annotated: bool) -> Iterator[str]:
    from forgetguard.report import findings, json_file, markdown, page

    status = exitstatus if run.exit_status is None else run.exit_status
    shown = page.run_of(json_file.complete(results_file.document(run, status)))
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if target:
        try:
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(markdown.summary(shown) + "\n")
        except OSError as error:  # the verdicts stand without it
            yield f"forgetguard: the step's summary was not written: {error.strerror or error}"
    if not annotated:
        root = Path(os.environ.get("GITHUB_WORKSPACE", "."))
        yield from findings.commands(findings.findings(shown, root.resolve()))
