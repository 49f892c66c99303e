"""What works against the capability is held in both directions: it may cease to, or do more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from forgetguard.gate.case import Case, Held
from forgetguard.gate.decision import Measurement, judge
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.declaration import CircuitSpec, InlinePairs, Limit
from forgetguard.gate.verdict import Estimate, Outcome, Verdict

FOR, AGAINST = Head(0, 0), Head(1, 1)
PAIRS = 64
TEXTS = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
SPEC = CircuitSpec("c", "ioi", InlinePairs(TEXTS), "logit_diff", (FOR, AGAINST), ())
QUICK = settings(max_examples=20, deadline=None, derandomize=True)


def noise(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[PAIRS] with mean 0 and standard deviation 1."""
    drawn = np.random.default_rng(seed).standard_normal(PAIRS)
    return (drawn - drawn.mean()) / drawn.std()


def measured(importance: float, damage: float, circuit: float = 5.0) -> Measurement:
    """A circuit worth `circuit` nats, undamaged, and in it a head worth `importance` that does
    `damage`, on average exactly."""
    worth = circuit * (1 + 0.1 * noise(1))
    return Measurement(
        pairs=tuple(PromptPair(f"c{i:02}", f"x{i:02}", " y", " n") for i in range(PAIRS)),
        base_readout=10 + 0.5 * noise(2),
        tuned_readout=10 + 0.5 * noise(2),
        base_correct=np.ones(PAIRS, dtype=bool),
        tuned_correct=np.ones(PAIRS, dtype=bool),
        circuit_importance=worth,
        circuit_damage=0.01 * noise(3),
        head_importance={FOR: 0.8 * worth, AGAINST: importance + 0.1 * noise(4)},
        head_damage={FOR: np.zeros(PAIRS), AGAINST: damage + 0.05 * noise(5)},
    )


def heads(data: Measurement, maximum: float = 0.25) -> Verdict:
    return judge(SPEC, Limit("dcv.head", maximum, 0), data)


@pytest.mark.parametrize(
    ("damage", "outcome", "value"),
    [
        (3.0, Outcome.FAIL, 3.0),  # three times as harmful as it was, and more
        (0.5, Outcome.FAIL, 0.5),
        (0.05, Outcome.PASS, 0.05),
        (-0.05, Outcome.PASS, 0.05),
        (-0.5, Outcome.FAIL, 0.5),  # half of what it did against the capability is gone
        (-1.0, Outcome.FAIL, 1.0),
    ],
)
def test_a_head_against_the_capability_may_change_in_neither_direction(
    damage: float, outcome: Outcome, value: float
) -> None:
    found = heads(measured(-1.0, damage))
    assert found.outcome is outcome
    if outcome is Outcome.FAIL:
        assert found.head == str(AGAINST)
        assert found.estimate is not None
        assert found.estimate.value == pytest.approx(value)
        assert f"|DCV| of {AGAINST}" in found.reason
    shown = next(one for one in found.worst_heads if one.head == str(AGAINST))
    assert shown.dcv is not None
    assert shown.dcv.value == pytest.approx(-damage)  # the ratio itself keeps its sign
    assert "held in both directions" in shown.note


def test_a_head_for_the_capability_may_still_improve() -> None:
    found = heads(measured(1.0, -3.0))
    assert found.outcome is Outcome.PASS
    assert "held in both directions" not in str(found.worst_heads)


@pytest.mark.parametrize(("damage", "outcome"), [(2.0, Outcome.FAIL), (-2.0, Outcome.PASS)])
@pytest.mark.parametrize("circuit", [5.0, -5.0])
def test_below_the_floor_harm_counts_whatever_the_circuits_sign(
    circuit: float, damage: float, outcome: Outcome
) -> None:
    found = heads(measured(0.1, damage, circuit))
    assert found.outcome is outcome


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.all"])
@pytest.mark.parametrize("damage", [2.0, -2.0])
def test_a_circuit_against_the_capability_may_change_in_neither_direction(
    key: str, damage: float
) -> None:
    data = measured(-1.0, 0.0, circuit=-5.0)
    changed = damage + 0.1 * noise(6)
    data = replace(
        data,
        circuit_damage=changed,
        all_importance=data.circuit_importance,
        all_damage=changed,
    )
    found = judge(SPEC, Limit(key, 0.1, 0), data)
    assert found.outcome is Outcome.FAIL
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.4)
    assert "|DCV| of" in found.reason


def case(data: Measurement, key: str = "dcv.head", family: int = 1) -> Case:
    return Case.of(SPEC, Limit(key, 0.25, 0), data, seed=0, family=family)


@QUICK
@given(st.floats(-3, 3), st.sampled_from([-2.0, -0.7, 0.7, 2.0]))
def test_held_is_the_larger_of_the_ratio_and_its_mirror_image_only_below_zero(
    damage: float, importance: float
) -> None:
    one = case(measured(importance, damage))
    rows = damage + 0.05 * noise(5), importance + 0.1 * noise(4)
    (held,) = one.vulnerabilities(rows[0][None], rows[1][None])
    there, back = one.ratios(np.stack([rows[0], -rows[0]]), np.stack([rows[1], rows[1]]))
    if importance > 0:
        assert held == one.ratio(*rows)
    else:
        assert held.estimate.value == pytest.approx(abs(damage / importance))
        assert held.estimate.low == max(there.estimate.low, back.estimate.low)
        assert held.estimate.high == max(there.estimate.high, back.estimate.high)
        assert held.low == max(there.low, back.low)


def test_the_larger_of_two_is_beyond_where_either_is_and_within_where_both_are() -> None:
    def held(low: float, high: float) -> Held:
        return Held(Estimate((low + high) / 2, low, high, 0.9, 64), low)

    beyond = held(0.3, 0.5).or_more(held(-0.5, -0.3))
    assert (beyond.low, beyond.estimate.high) == (0.3, 0.5)
    assert beyond == held(-0.5, -0.3).or_more(held(0.3, 0.5))
    open_ended = held(-0.1, 0.2).or_more(held(-0.2, 0.1))
    assert open_ended.estimate.interval == (-0.1, 0.2)
