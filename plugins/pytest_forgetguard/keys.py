"""What makes a test a gate, and a process a worker."""

from __future__ import annotations

import pytest

MARKER = "forgetguard"
SUFFIXES = (".circuit.yaml", ".circuit.yml", ".gate.yaml", ".gate.yml")


def is_gate(item: pytest.Item) -> bool:
    """Whether the item is a gate: a declared limit, or a test that is marked as one or uses the
    fixture."""
    return item.get_closest_marker(MARKER) is not None or MARKER in getattr(
        item, "fixturenames", ()
    )


def is_python_gate(item: pytest.Item) -> bool:
    """Whether the item is a gate and not a declared limit."""
    return is_gate(item) and not item.path.name.endswith(SUFFIXES)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is an xdist worker process."""
    return hasattr(config, "workerinput")
