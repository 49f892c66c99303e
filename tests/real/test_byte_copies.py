"""A real model against a byte copy of itself loses exactly nothing, by every kind of limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from record.real_runs import HEADS, circuit
from record.runs import Run, perform

PAIRS = 12
ALL = (
    "dcv.circuit",
    "dcv.head",
    "dcv.all",
    "accuracy.drop",
    "readout.drop",
    "dcv.circuit.over_reference",
    "dcv.head.over_reference",
)
OVER_BASELINE = (
    "dcv.circuit.over_baseline",
    "dcv.head.over_baseline",
    "accuracy.drop.over_baseline",
)


@pytest.mark.parametrize(
    "limits",
    [pytest.param(ALL, id="all"), pytest.param(OVER_BASELINE, id="over", marks=pytest.mark.slow)],
)
def test_a_byte_copy_reads_exactly_zero(
    base: Path, copied: Callable[[str], Path], limits: tuple[str, ...], tmp_path: Path
) -> None:
    same = str(copied("byte copy"))
    given = dict.fromkeys(limits, 0.1)
    run = Run(
        same,
        reference=same if limits is ALL else "",
        base=str(base),
        options=("--forgetguard-allow-same",),
        files={f"real-{task}": circuit(task, PAIRS, given) for task in HEADS},
        accepted="" if limits is ALL else same,
    )
    circuits = perform(run, tmp_path)["circuits"]
    assert sorted(circuits) == ["real-induction", "real-ioi"]
    for found in circuits.values():
        arrays = found["arrays"]
        damages = [name for name in arrays if "damage" in name]
        assert len(damages) >= 1 + 2 * len(found["heads"])
        assert {name: set(arrays[name]) for name in damages} == {name: {0.0} for name in damages}
        assert arrays["tuned_readout"] == arrays["base_readout"]
        assert min(map(abs, arrays["circuit_importance"])) > 0
        assert set(found["limits"]) == set(limits)
        estimates = [one["estimate"] for one in found["limits"].values()]
        assert {one["value"] for one in estimates if one is not None} <= {0.0}
