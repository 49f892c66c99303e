"""The gate measures and decides what is on record from before it was rebuilt (tests/record)."""

from __future__ import annotations

from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from record.comparing import ELSEWHERE, arithmetic, differences, load
from record.runs import BASE, TINY, perform, tiny_runs

# A run that holds every number of another, and more, stands for both.
HELD_BY = {"sft": "sft with controls"}


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return load(TINY)


@pytest.fixture(scope="module")
def tolerance(record: dict[str, Any]) -> float:
    """0 where this machine computes bit for bit what the recording one did."""
    return 0.0 if arithmetic(BASE) == record["made"]["arithmetic"] else ELSEWHERE


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in tiny_runs() if one not in HELD_BY])
def test_arrays_estimates_and_outcomes_are_those_on_record(
    record: dict[str, Any], tolerance: float, name: str, tmp_path: Path
) -> None:
    found = perform(tiny_runs()[name], tmp_path)
    assert list(islice(differences(record["runs"][name], found, tolerance), 20)) == []


@pytest.mark.parametrize(("name", "other"), HELD_BY.items())
def test_what_is_not_run_again_is_held_by_what_is(
    record: dict[str, Any], name: str, other: str
) -> None:
    found = list(differences(record["runs"][name], record["runs"][other]))
    assert found
    assert [one for one in found if ": '<absent>', " not in one] == []


def test_one_bit_less_or_another_verdict_is_a_difference(record: dict[str, Any]) -> None:
    runs = record["runs"]
    changed = deepcopy(runs)
    circuit = changed["sft"]["circuits"]["tiny-ioi"]
    name = next(name for name in circuit["arrays"] if name.startswith("head_damage/"))
    circuit["arrays"][name][3] += 1e-15
    circuit["limits"]["dcv.head"]["outcome"] = "abstain"
    del circuit["limits"]["accuracy.drop"]
    assert len(list(differences(runs, changed))) == 3
    assert len(list(differences(runs, changed, ELSEWHERE))) == 2
