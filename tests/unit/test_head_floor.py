"""A head that is worth little is held to the limit relative to a share of the whole circuit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_samples import changed, read, remarks, samples

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit
from forgetguard.gate.estimate import Case
from forgetguard.gate.family import subject_bounds
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Outcome, SubjectEvidence, Verdict
from forgetguard.measures import registry
from forgetguard.measures.samples import Note, Samples

STRONG, WEAK = Head(0, 0), Head(1, 1)
PAIRS = 64
QUICK = settings(max_examples=25, deadline=None, derandomize=True)
TEXTS = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
SPEC = GateSpec("c", "ioi", InlinePairs(TEXTS), "logit_diff", (STRONG, WEAK), ())
ORDER = (Outcome.FAIL, Outcome.ABSTAIN, Outcome.PASS)


def noise(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """[PAIRS] with mean 0 and standard deviation 1."""
    drawn = np.random.default_rng(seed).standard_normal(PAIRS)
    return (drawn - drawn.mean()) / drawn.std()


def measured(
    worth: float, damage: float, *, spread: float = 0.02, importance_spread: float = 0.02
) -> Samples:
    """A circuit worth 1 nat a pair and an undamaged strong head, beside a head that is worth
    `worth` and does `damage`, both in nats, on average exactly."""
    circuit = 1 + 0.1 * noise(1)
    return samples(
        tuple(PromptPair(f"c{i:02}", f"x{i:02}", " y", " n") for i in range(PAIRS)),
        base_readout=3 + 0.1 * noise(2),
        tuned_readout=3 + 0.1 * noise(2),
        base_correct=np.ones(PAIRS, dtype=bool),
        tuned_correct=np.ones(PAIRS, dtype=bool),
        circuit_importance=circuit,
        circuit_damage=0.01 * noise(3),
        head_importance={STRONG: 0.8 * circuit, WEAK: worth + importance_spread * noise(4)},
        head_damage={STRONG: np.zeros(PAIRS), WEAK: damage + spread * noise(5)},
    )


def held(data: Samples, floor: float = 0.10, maximum: float = 0.25, **more: int) -> Verdict:
    return judge(SPEC, Limit("dcv.head", maximum, 0, floor), data, **more)


def evidence(found: Verdict) -> SubjectEvidence:
    return next(one for one in found.subjects if one.subject == str(WEAK))


def test_a_weak_heads_own_noise_neither_fails_nor_blocks_the_limit() -> None:
    # Half of what it was worth is gone; that is 1 % of what the circuit was worth.
    data = measured(0.02, 0.01, spread=0.04)
    plain, floored = held(data, floor=0.0), held(data)
    assert plain.outcome is Outcome.ABSTAIN
    assert plain.estimate is not None
    assert plain.estimate.value == pytest.approx(0.5)
    assert floored.outcome is Outcome.PASS
    assert floored.estimate is not None
    assert floored.estimate.value == pytest.approx(0.1, rel=0.01)


def test_a_verdict_names_the_heads_that_were_held_by_the_floor_and_shows_both_numbers() -> None:
    found = held(measured(0.02, 0.01))
    by_floor = {"over": "floor", "floor": 0.10, "subjects": [str(WEAK)]}
    assert remarks(found) == (Note("held_by_floor", by_floor),)
    head = evidence(found)
    assert head.value is not None
    assert head.value.value == pytest.approx(0.5)
    (note,) = head.notes
    assert (note.code, note.facts["floor"]) == ("floored", 0.10)
    assert note.facts["worth"] == pytest.approx(0.02)
    assert note.facts["value"] == pytest.approx(0.1)
    assert note.facts["low"] < 0.1 < note.facts["high"]
    strong = held(measured(0.5, 0.01))
    assert remarks(strong) == ()
    assert evidence(strong).notes == ()


def test_harm_beyond_what_a_weak_head_was_worth_fails() -> None:
    found = held(measured(0.02, 0.05))
    assert (found.outcome, found.subject) == (Outcome.FAIL, str(WEAK))
    assert (found.facts["over"], found.facts["floor"]) == ("floor", 0.10)


def compared(data: Samples, floor: float) -> float:
    """What the weak head is compared with the limit by."""
    case = Case.of(SPEC, data, seed=0, family=1)
    found = subject_bounds(case, registry.find("dcv.head"), "", floor)
    return next(one.held.estimate.value for one in found if one.subject == str(WEAK))


@QUICK
@given(st.floats(-0.05, 0.08), st.floats(0, 0.5), st.floats(0.01, 0.3))
def test_what_is_compared_is_damage_over_the_larger_of_worth_and_floor(
    damage: float, worth: float, floor: float
) -> None:
    found = compared(measured(worth, damage, importance_spread=0.001), floor)
    assert found == pytest.approx(damage / max(worth, floor), abs=1e-9)


@QUICK
@given(st.floats(-0.05, 0.08), st.floats(0.01, 0.3))
def test_it_does_not_jump_where_a_head_reaches_the_floor(damage: float, floor: float) -> None:
    below, above = (
        compared(measured(floor + step, damage, importance_spread=0.001), floor)
        for step in (-1e-7, 1e-7)
    )
    assert below == pytest.approx(above, rel=1e-4, abs=1e-9)


@QUICK
@given(st.floats(0.01, 0.2), st.floats(0, 0.15), st.sampled_from([0.25, 0.6]))
def test_raising_the_floor_never_makes_a_verdict_worse(
    worth: float, damage: float, maximum: float
) -> None:
    data = measured(worth, damage, importance_spread=0.001)
    ladder = [ORDER.index(held(data, floor, maximum).outcome) for floor in (0.05, 0.1, 0.3, 1.0)]
    assert ladder == sorted(ladder)


@QUICK
@given(st.floats(-0.2, 0.5), st.floats(0, 0.2))
def test_more_damage_never_makes_a_verdict_better(worth: float, damage: float) -> None:
    ladder = [
        ORDER.index(held(measured(worth, damage + more)).outcome) for more in (0, 0.01, 0.05, 0.3)
    ]
    assert ladder == sorted(ladder, reverse=True)


def test_a_negative_head_below_the_floor_is_held_to_the_harm_it_does() -> None:
    assert held(measured(-0.05, -0.05)).outcome is Outcome.PASS  # silent: the readout rises
    assert held(measured(-0.05, 0.05)).outcome is Outcome.FAIL  # it works against it twice as hard
    assert held(measured(-0.3, -0.3)).outcome is Outcome.FAIL  # above the floor, silence is a loss


@pytest.mark.parametrize(
    ("damage", "outcome"), [(0.01, Outcome.PASS), (0.1, Outcome.ABSTAIN), (0.4, Outcome.FAIL)]
)
def test_a_head_of_unknown_worth_passes_by_the_floor_and_fails_by_the_whole_circuit(
    damage: float, outcome: Outcome
) -> None:
    # Worth 20 % of the circuit, give or take 12 times as much from pair to pair.
    data = measured(0.2, damage, importance_spread=2.4)
    found = held(data)
    assert evidence(found).value is None
    assert found.outcome is outcome
    between = {"over": "between", "floor": 0.10, "subjects": [str(WEAK)]}
    assert remarks(found) == (Note("held_by_floor", between),)
    if found.subject == str(WEAK):
        assert found.estimate is not None
        assert np.isfinite(found.estimate.interval).all()
        assert found.estimate.value == pytest.approx(damage / 0.2, rel=0.01)


@QUICK
@given(st.floats(0.01, 0.5), st.floats(0, 0.3), st.integers(2, 400))
def test_a_larger_family_makes_fails_rarer_and_leaves_passes_alone(
    worth: float, damage: float, family: int
) -> None:
    data = measured(worth, damage, spread=0.1)
    alone, among = held(data), held(data, family=family)
    assert among.estimate == alone.estimate or alone.outcome is Outcome.FAIL
    if alone.outcome is Outcome.FAIL:
        assert among.outcome in (Outcome.FAIL, Outcome.ABSTAIN)
    else:
        assert among.outcome is alone.outcome


def test_below_the_floor_harm_counts_whichever_way_the_circuit_works() -> None:
    for damage in (-0.05, 0.05):
        data = measured(0.02, damage)
        against = changed(data, circuit_importance=-read(data, "circuit_importance"))
        assert compared(against, 0.10) == pytest.approx(damage / 0.10)


def test_new_harm_by_a_head_against_the_capability_is_shown_with_its_sign_and_as_its_own() -> None:
    data = measured(-0.3, 0.1)
    own = {STRONG: np.zeros(PAIRS), WEAK: read(data, "head_damage", WEAK)}
    damage = {STRONG: 0.5 * read(data, "head_importance", STRONG), WEAK: own[WEAK]}
    data = changed(data, head_damage=damage, head_own_damage=own)
    found = held(data)
    # What a head does itself leads, in the verdict's line and in the evidence.
    assert (found.subject, found.facts["others"]) == (str(WEAK), [str(STRONG)])
    assert found.facts["against"] is True
    assert found.subjects[0].subject == str(WEAK)
    inherited = held(changed(data, head_own_damage=dict.fromkeys(own, np.zeros(PAIRS))))
    assert (inherited.subject, inherited.facts["others"]) == (str(STRONG), [str(WEAK)])
    assert "against" not in inherited.facts
    shown = evidence(found)
    assert shown.value is not None
    assert shown.own is not None
    assert shown.value.value == pytest.approx(-1 / 3)
    assert shown.own.value == pytest.approx(-1 / 3)
    alone = held(changed(data, head_damage={STRONG: np.zeros(PAIRS), WEAK: own[WEAK]}))
    assert (alone.subject, alone.facts["against"]) == (str(WEAK), True)
    assert alone.estimate is not None
    assert alone.estimate.value == pytest.approx(1 / 3)
