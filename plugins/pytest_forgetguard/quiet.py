"""What `forgetguard check` loads beside the plugin: gates alone, and a quiet pytest."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_forgetguard import results_file
from pytest_forgetguard.keys import SUFFIXES
from pytest_forgetguard.state import RUN


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the command reads the verdicts from."""
    parser.addoption("--check-results", type=Path)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only gate files under the paths that were given, and nothing without one: the folder's own
    tests are no part of a check."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return True
    return None if collection_path.is_dir() or collection_path.name.endswith(SUFFIXES) else True


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str]:
    """Counted, without a letter: the table says what became of each limit."""
    return (report.outcome if report.when == "call" or not report.passed else "", "", "")


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_terminal_summary(exitstatus: int, config: pytest.Config) -> Generator[None]:
    """The plugin's table, although pytest is told to be quiet, and not pytest's last line."""
    from forgetguard.report import json_file

    run = config.stash[RUN]
    config.option.verbose = int(config.option.tbstyle != "no")
    left_out, run.left_out = run.left_out, {}  # the command has told it, in its own options
    yield
    run.left_out = left_out
    document = results_file.document(run, exitstatus)
    json_file.write(config.option.check_results, document)
    config.option.verbose = -2
