"""Starts a gate run: its state goes into the stash, its hooks are registered."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_forgetguard import code_host, collection, distributed, finish, preflight, terminal
from pytest_forgetguard.backend import ModelBackend
from pytest_forgetguard.keys import is_worker
from pytest_forgetguard.measuring import Measurements
from pytest_forgetguard.near_misses import paths_given
from pytest_forgetguard.progress import progress_of
from pytest_forgetguard.reports import Reports
from pytest_forgetguard.settings import Settings
from pytest_forgetguard.state import RUN, Run

_OF_CHECK = "pytest_forgetguard.quiet"


def activate(config: pytest.Config, settings: Settings) -> None:
    """Register the hooks of an active run."""
    backend = config.hook.pytest_forgetguard_backend(config=config, settings=settings)
    backend = backend or ModelBackend(settings)
    run = config.stash[RUN] = Run(
        settings=settings,
        backend=backend,
        measurements=Measurements(backend, progress_of(config)),
        worker=is_worker(config),
        selection=selection(config),
    )
    for module in (preflight, collection, distributed, terminal, code_host, finish):
        config.pluginmanager.register(module, f"forgetguard-{module.__name__.rpartition('.')[2]}")
    config.pluginmanager.register(Reports(run), "forgetguard-reports")
    config.pluginmanager.register(run.uses, "forgetguard-uses")


def selection(config: pytest.Config) -> dict[str, Any]:
    """How this run chooses among the gates there are: what the results file says of it.
    `by_name`: it names them (node ids, or --lf), so that others are left out on purpose."""
    option = config.option
    last_failed = bool(config.getoption("lf", False)) and bool(
        getattr(config.pluginmanager.get_plugin("lfplugin"), "lastfailed", None)
    )
    return {
        "arguments": paths_given(config),
        "keyword": option.keyword,
        "markers": option.markexpr,
        "deselect": list(option.deselect or ()),
        "last_failed": last_failed,
        "by_name": last_failed or any("::" in str(argument) for argument in config.args),
        "command": "check" if config.pluginmanager.hasplugin(_OF_CHECK) else "pytest",
    }
