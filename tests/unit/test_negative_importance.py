"""What works against the capability is held in both directions: it may cease to, or do more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_samples import changed, read, samples

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit
from forgetguard.gate.estimate import Bounds, Case
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Estimate, Outcome, Verdict
from forgetguard.measures.samples import Note, Samples

FOR, AGAINST = Head(0, 0), Head(1, 1)
PAIRS = 64
TEXTS = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
SPEC = GateSpec("c", "ioi", InlinePairs(TEXTS), "logit_diff", (FOR, AGAINST), ())
QUICK = settings(max_examples=20, deadline=None, derandomize=True)


def noise(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[PAIRS] with mean 0 and standard deviation 1."""
    drawn = np.random.default_rng(seed).standard_normal(PAIRS)
    return (drawn - drawn.mean()) / drawn.std()


def measured(importance: float, damage: float, circuit: float = 5.0) -> Samples:
    """A circuit worth `circuit` nats, undamaged, and in it a head worth `importance` that does
    `damage`, on average exactly."""
    worth = circuit * (1 + 0.1 * noise(1))
    return samples(
        tuple(PromptPair(f"c{i:02}", f"x{i:02}", " y", " n") for i in range(PAIRS)),
        base_readout=10 + 0.5 * noise(2),
        tuned_readout=10 + 0.5 * noise(2),
        base_correct=np.ones(PAIRS, dtype=bool),
        tuned_correct=np.ones(PAIRS, dtype=bool),
        circuit_importance=worth,
        circuit_damage=0.01 * noise(3),
        head_importance={FOR: 0.8 * worth, AGAINST: importance + 0.1 * noise(4)},
        head_damage={FOR: np.zeros(PAIRS), AGAINST: damage + 0.05 * noise(5)},
    )


def heads(data: Samples, maximum: float = 0.25) -> Verdict:
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
        assert (found.subject, found.facts["against"]) == (str(AGAINST), True)
        assert found.estimate is not None
        assert found.estimate.value == pytest.approx(value)
    shown = next(one for one in found.subjects if one.subject == str(AGAINST))
    assert shown.value is not None
    assert shown.value.value == pytest.approx(-damage)  # the ratio itself keeps its sign
    assert shown.notes == (Note("works_against"),)


def test_a_head_for_the_capability_may_still_improve() -> None:
    found = heads(measured(1.0, -3.0))
    assert found.outcome is Outcome.PASS
    assert "against" not in found.facts
    assert all(one.notes == () for one in found.subjects)


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
    lost = damage + 0.1 * noise(6)
    data = changed(
        data,
        circuit_damage=lost,
        all_importance=read(data, "circuit_importance"),
        all_damage=lost,
    )
    found = judge(SPEC, Limit(key, 0.1, 0), data)
    assert found.outcome is Outcome.FAIL
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.4)
    assert found.facts["against"] is True


@QUICK
@given(st.floats(-3, 3), st.sampled_from([-2.0, -0.7, 0.7, 2.0]))
def test_held_is_the_larger_of_the_ratio_and_its_mirror_image_only_below_zero(
    damage: float, importance: float
) -> None:
    one = Case.of(SPEC, measured(importance, damage), seed=0, family=1)
    rows = damage + 0.05 * noise(5), importance + 0.1 * noise(4)
    (held,) = one.vulnerabilities(rows[0][None], rows[1][None])
    there, back = one.ratios(np.stack([rows[0], -rows[0]]), np.stack([rows[1], rows[1]]))
    if importance > 0:
        assert held == one.ratio(*rows)
    else:
        assert held.estimate.value == pytest.approx(abs(damage / importance))
        assert held.estimate.low == max(there.estimate.low, back.estimate.low)
        assert held.estimate.high == max(there.estimate.high, back.estimate.high)
        assert held.corrected_low == max(there.corrected_low, back.corrected_low)


def test_the_larger_of_two_is_beyond_where_either_is_and_within_where_both_are() -> None:
    def held(low: float, high: float) -> Bounds:
        return Bounds(Estimate((low + high) / 2, low, high, 0.9, 64), low)

    beyond = held(0.3, 0.5).or_more(held(-0.5, -0.3))
    assert (beyond.corrected_low, beyond.estimate.high) == (0.3, 0.5)
    assert beyond == held(-0.5, -0.3).or_more(held(0.3, 0.5))
    open_ended = held(-0.1, 0.2).or_more(held(-0.2, 0.1))
    assert open_ended.estimate.interval == (-0.1, 0.2)
