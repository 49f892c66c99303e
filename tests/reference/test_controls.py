"""Controls beside a verdict: damage planted in a circuit shows there and not in other heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_copies import BASE, copy_of_base, output_slice_zeroed

import forgetguard as fg
from forgetguard.anatomy.members import Head
from forgetguard.gate.schema import GateSpec, Limit, TaskPairs, load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Outcome, Verdict
from forgetguard.measures.samples import Note
from forgetguard.report.wording import controls as control_line

pytestmark = pytest.mark.usefixtures("one_thread")

CIRCUITS = Path(__file__).parents[2] / "circuits"
WHOLE = Limit("dcv.circuit", 0.10)
# No head here lies behind it, where it would inherit what is planted.
DAMAGED = Head(2, 2)
HEADS = (DAMAGED, Head(0, 2), Head(1, 4))
OTHERS = (Head(2, 0), Head(1, 5), Head(0, 2))


def circuit(heads: tuple[Head, ...] = HEADS, name: str = "kept") -> GateSpec:
    spec = load_gate_file(CIRCUITS / "tiny-key_value.circuit.yaml")
    pairs = TaskPairs("key_value", 32, 11)
    return replace(spec, name=name, members=heads, member_lines=(), limits=(WHOLE,), pairs=pairs)


def gate(tuned: Path, controls: int, specs: tuple[GateSpec, ...] = ()) -> Callable[..., Verdict]:
    """Judges limits of the first circuit; all by one session."""
    specs = specs or (circuit(), circuit(OTHERS, "other"))
    pair = fg.load(base=str(BASE), tuned=str(tuned), allow_same=True)
    return partial(GateSession(pair, specs, controls=controls).judge, specs[0])


def judged(tuned: Path, controls: int, specs: tuple[GateSpec, ...] = ()) -> Verdict:
    return gate(tuned, controls, specs)(WHOLE)


def test_damage_in_the_circuit_shows_in_it_and_in_no_control(tmp_path: Path) -> None:
    tuned = copy_of_base(tmp_path, output_slice_zeroed(DAMAGED))
    found = judged(tuned, 3)
    assert found.outcome is Outcome.FAIL
    assert found.estimate is not None
    assert found.estimate.low > 0.1
    assert [one.name for one in found.controls] == ["random 1", "random 2", "random 3", "other"]
    for one in found.controls:
        assert one.dcv is not None
        assert not set(one.members) & set(map(str, HEADS))
        assert one.dcv.value == 0.0, "these heads are the base's, byte for byte"
    assert found.controls[-1].members == ("L1H5", "L2H0")
    assert found.controls[-1].note == Note("other_heads", {"why": "2 of 3, the rest is shared"})
    assert "more than any" in control_line(found)


def test_damage_elsewhere_shows_in_the_control_that_holds_it_and_not_in_the_circuit(
    tmp_path: Path,
) -> None:
    tuned = copy_of_base(tmp_path, output_slice_zeroed(DAMAGED))
    spared, harmed = circuit(OTHERS, "kept"), circuit(HEADS, "other")
    found = judged(tuned, 1, (spared, harmed))
    assert found.outcome is Outcome.PASS
    other = found.controls[-1]
    assert other.members == ("L1H4", str(DAMAGED))
    assert other.dcv is not None
    assert other.dcv.low > 0
    assert "reached by" in control_line(found)


def test_a_control_is_the_damage_of_its_heads_over_the_importance_of_this_circuit(
    tmp_path: Path,
) -> None:
    """Against the gate itself, which is told that the control's heads are the circuit."""
    tuned = copy_of_base(tmp_path, output_slice_zeroed(DAMAGED))
    harmed = circuit((DAMAGED, Head(1, 4)), "other")
    specs = (circuit(OTHERS), harmed)
    pair = fg.load(base=str(BASE), tuned=str(tuned), allow_same=True)
    session = GateSession(pair, specs, controls=1)
    found = session.judge(specs[0], WHOLE)
    damage = session.measurement(harmed).need("damage", "circuit")
    importance = session.measurement(specs[0]).need("importance", "circuit", "base")
    control = found.controls[-1].dcv
    assert control is not None
    assert control.value == pytest.approx(float(np.mean(damage) / np.mean(importance)), abs=1e-6)


def test_controls_change_no_verdict(tmp_path: Path) -> None:
    tuned = copy_of_base(tmp_path, output_slice_zeroed(DAMAGED))
    without, with_controls = gate(tuned, 0), gate(tuned, 2)
    for limit in (WHOLE, Limit("dcv.head", 0.25), Limit("accuracy.drop", 0.1)):
        plain, beside = without(limit), with_controls(limit)
        assert plain.controls == ()
        assert len(beside.controls) == (3 if limit == WHOLE else 0)
        assert replace(beside, controls=()) == plain
