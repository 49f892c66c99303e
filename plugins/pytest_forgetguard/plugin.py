"""The plugin's front: what every pytest session loads. The rest is loaded for a gate run only."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from pytest_forgetguard import arguments, hooks
from pytest_forgetguard.keys import MARKER, is_gate
from pytest_forgetguard.options import FORM, add_options, asks_for_gate

if TYPE_CHECKING:
    from pytest_forgetguard.fixtures import Forgetguard

NO_RUN = (
    "this gate needs checkpoints, and this run was given none: a gate that did not run is no pass. "
    f"Run {FORM}, or leave gates out on purpose with -m 'not {MARKER}'"
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let conftest files implement the plugin's hook."""
    pluginmanager.add_hookspecs(hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Rewrite the arguments before pytest parses them for good; by now they hold `addopts` of
    the ini file and PYTEST_ADDOPTS as well, in xdist workers too."""
    if not any(token.startswith(arguments.FLAG) for token in args):
        return
    arguments.rewrite(args)
    known = parser.parse_known_args(args, namespace=copy.copy(early_config.option))
    # The first parse took the pairs for paths, and conftest files are looked for by these paths.
    early_config.known_args_namespace.file_or_dir = known.file_or_dir


def pytest_configure(config: pytest.Config) -> None:
    """Start a gate run where one was asked for."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(circuit=PATH or [PATH, ...]): a gate written in Python; the circuits it names "
        "are measured together with those of the circuit files.",
    )
    if config.option.help or config.option.version:
        return
    if asks_for_gate(config):
        from pytest_forgetguard.activation import activate
        from pytest_forgetguard.settings import read_settings

        activate(config, read_settings(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use the fixture, so that `-m forgetguard` selects every gate."""
    for item in items:
        if is_gate(item) and item.get_closest_marker(MARKER) is None:
            item.add_marker(MARKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail, not skip, a gate in a run without checkpoints."""
    if is_gate(item):
        from pytest_forgetguard.state import RUN

        if RUN not in item.config.stash:
            pytest.fail(NO_RUN, pytrace=False)


@pytest.fixture(scope="session")
def forgetguard(request: pytest.FixtureRequest) -> Forgetguard:
    """The checkpoints of this gate run, and limits on circuits as assertions."""
    from pytest_forgetguard.state import RUN

    if RUN not in request.config.stash:
        pytest.fail(NO_RUN, pytrace=False)
    from pytest_forgetguard.fixtures import Forgetguard

    return Forgetguard(request.config.stash[RUN], request.config.rootpath)
