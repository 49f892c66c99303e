"""The gate measures and decides on a real model what is on record (tests/record)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from record.comparing import ELSEWHERE, arithmetic, differences, load
from record.real_runs import COPIES, REAL, real_run
from record.runs import perform

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return load(REAL)


@pytest.fixture(scope="module")
def tolerance(base: Path, record: dict[str, Any]) -> float:
    """0 where this machine computes bit for bit what the recording one did."""
    return 0.0 if arithmetic(base) == record["made"]["arithmetic"] else ELSEWHERE


@pytest.mark.parametrize("name", COPIES)
def test_arrays_estimates_and_outcomes_are_those_on_record(
    base: Path,
    copied: Callable[[str], Path],
    record: dict[str, Any],
    tolerance: float,
    name: str,
    tmp_path: Path,
) -> None:
    found = perform(real_run(base, copied(name)), tmp_path)
    assert list(islice(differences(record["runs"][name], found, tolerance), 20)) == []


def test_the_record_holds_the_zeroed_head(record: dict[str, Any]) -> None:
    arrays = record["runs"]["head zeroed"]["circuits"]["real-induction"]["arrays"]
    worth, lost = sum(arrays["head_importance/L18H6"]), sum(arrays["head_damage/L18H6"])
    assert len(arrays["base_readout"]) == 64
    assert lost / worth == pytest.approx(0.66, abs=0.01)
