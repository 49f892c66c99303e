"""The whole study as one dictionary of plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from examples.studies.statistics import (
    coverage,
    doses,
    families,
    proportions,
    sequences,
    tiny_family,
)
from examples.studies.statistics.settings import Settings

Say = Callable[[str], None]


def study(settings: Settings, *, say: Say, large: Path | None = None) -> dict[str, Any]:
    """Measure everything.

    Args:
        say: is told what is being done.
        large: a file that keeps the large sets of the tiny family: read if it is there, else
            written. None: they are measured.

    Raises:
        ForgetguardError: the tiny family cannot be measured.
    """
    say("coverage of intervals, on made-up data")
    found: dict[str, Any] = {"settings": asdict(settings), "coverage": coverage.measure(settings)}
    found["accuracy"] = proportions.measure(settings)
    found["accuracy_templates"] = proportions.by_template(settings)
    say("false alarms of families of heads")
    found["corrections"] = families.compare(settings)
    say("false alarms of whole gates")
    found["gates"] = families.gates(settings)
    say("power against dose")
    found["doses"] = {"circuits": doses.circuits(settings), "heads": doses.heads(settings)}
    say("sequential drawing")
    found["sequences"] = sequences.measure(settings)
    sets = _large_sets(settings, say, large)
    say("subsamples of the tiny family")
    found["tiny"] = {
        "shapes": tiny_family.shapes(sets),
        "coverage": tiny_family.coverage(settings, sets),
        "gates": tiny_family.gates(settings, sets),
    }
    return found


def _large_sets(settings: Settings, say: Say, kept: Path | None) -> list[tiny_family.LargeSet]:
    if kept is not None and kept.is_file():
        return tiny_family.read(kept)
    sets = tiny_family.large_sets(settings, say)
    if kept is not None:
        tiny_family.save(sets, kept)
    return sets
