"""Checks everything that can be known before weights are loaded, in the session's own process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forgetguard.errors import ForgetguardError, SpecificationError
from pytest_forgetguard import baseline, near_misses, results_file
from pytest_forgetguard.state import RUN

if TYPE_CHECKING:
    from pytest_forgetguard.state import Run


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Check results file, circuit paths and checkpoints, before xdist starts its workers.

    Raises:
        pytest.UsageError: one of them cannot be used (exit status 4).
    """
    run = session.config.stash[RUN]
    if run.worker:
        return
    collect_only = session.config.option.collectonly
    try:
        if not collect_only:
            results_file.begin(run)
            baseline.begin(run)
        for path in run.settings.circuits:
            circuit_files(path)
        _check_names(session.config)
        run.notes += run.backend.preflight()
        settings = run.settings
        wanted = settings.json or settings.html or settings.recording
        if wanted and not collect_only:
            run.fingerprints = run.backend.fingerprints()
            run.size = run.backend.size()
    except ForgetguardError as error:
        _refuse(run, str(error), collect_only)


def _refuse(run: Run, message: str, collect_only: bool) -> None:
    run.usage_errors[message] = None
    if not collect_only:
        results_file.end(run, int(pytest.ExitCode.USAGE_ERROR))
    raise pytest.UsageError(message) from None


def _check_names(config: pytest.Config) -> None:
    """Refuse a circuit file that was given by a name which pytest would find no gate under.

    Raises:
        SpecificationError: there is one.
    """
    for path in near_misses.located(config, near_misses.paths_given(config)):
        if path.is_file() and near_misses.is_near_miss(path):
            raise SpecificationError(f"no circuit file: {near_misses.advice([path])}rename it")


def circuit_files(path: Path) -> list[Path]:
    """What one `--forgetguard-circuits` names (raises SpecificationError)."""
    from forgetguard.gate.schema import gate_files

    return gate_files(path, "--forgetguard-circuits: ", near_misses.advice([path]))
