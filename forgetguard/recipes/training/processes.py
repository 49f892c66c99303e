"""Which process of a distributed run this is, as its launcher says."""

from __future__ import annotations

import os


def is_main() -> bool:
    """Whether this process is the first, or the only, one of the run."""
    return int(os.environ.get("RANK", "0")) == 0


def count() -> int:
    """How many processes, and so devices, the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))
