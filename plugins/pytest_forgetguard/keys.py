"""Where a run's state is found, and what makes a test a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_forgetguard.state import Run

MARKER = "forgetguard"
SUFFIXES = (".circuit.yaml", ".circuit.yml", ".gate.yaml", ".gate.yml")
RUN: pytest.StashKey[Run] = pytest.StashKey()


def is_gate(item: pytest.Item) -> bool:
    """Whether the item is a gate: a declared limit, or a test that is marked as one or uses the
    fixture."""
    return item.get_closest_marker(MARKER) is not None or MARKER in getattr(
        item, "fixturenames", ()
    )


def is_worker(config: pytest.Config) -> bool:
    """Whether this is an xdist worker process."""
    return hasattr(config, "workerinput")
