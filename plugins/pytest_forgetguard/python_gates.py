"""Whether a Python gate gated anything, in its own code or in the fixtures it rests on."""

from __future__ import annotations

from collections.abc import Generator
from itertools import chain
from typing import Any

import pytest

from pytest_forgetguard.keys import MARKER, is_python_gate

ASSERTED = "a limit was asserted"
MEASURED = "something was measured"
NO_LIMIT = (
    "this gate read no limit, so it shows nothing: call forgetguard.assert_limit(...) or "
    f"forgetguard.check(...), or, where nothing is to be gated, take the fixture or marker "
    f"{MARKER!r} away"
)


class Uses:
    """What tests did with the fixture `forgetguard`, and the hooks that keep them apart.

    A fixture of wider scope may assert a limit for all the tests that use it.
    """

    def __init__(self) -> None:
        self._item: set[str] = set()
        self._fixtures: dict[object, set[str]] = {}  # by fixture, its latest set-up
        self._open: list[set[str]] = []  # fixtures being set up, the outermost first

    def note(self, use: str) -> None:
        """Count one use for the running test and for every fixture that is being set up."""
        for uses in (self._item, *self._open):
            uses.add(use)

    def of(self, item: pytest.Item) -> set[str]:
        """What the running item did, with the fixtures that it uses."""
        known: Any = getattr(item, "_fixtureinfo", None)  # pytest has no public way
        fixtures = () if known is None else chain.from_iterable(known.name2fixturedefs.values())
        return self._item.union(*(self._fixtures.get(fixture, ()) for fixture in fixtures))

    def gates_nothing(self, item: pytest.Item) -> bool:
        """Whether the running item is a Python gate that has asserted no limit."""
        return is_python_gate(item) and ASSERTED not in self.of(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """A test begins."""
        self._item = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """What is noted meanwhile is the fixture's doing."""
        uses = self._fixtures[fixturedef] = set[str]()
        self._open.append(uses)
        try:
            return (yield)
        finally:
            self._open.pop()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a gate that ends well and has neither asserted nor measured anything."""
        result = yield
        if is_python_gate(item) and not self.of(item):
            pytest.fail(NO_LIMIT, pytrace=False)
        return result
