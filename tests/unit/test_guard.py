"""A guard: one imagined pair keeps a pass from resting on pairs that were not drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_samples import HEADS, changed, measured, read, spec

from forgetguard.errors import SpecificationError
from forgetguard.gate import guard, studentised
from forgetguard.gate.declaration import Limit
from forgetguard.gate.rule import judge
from forgetguard.gate.schema import dump, parse_gate
from forgetguard.gate.verdict import Code, Outcome
from forgetguard.measures.samples import FloatArray

QUICK = settings(max_examples=25, deadline=None, derandomize=True)
LIMIT = 0.10


def upper(damage: FloatArray, importance: FloatArray, loss: float = 1.0) -> FloatArray:
    return guard.upper(np.atleast_2d(damage), np.atleast_2d(importance), loss=loss, alpha=0.05)


@pytest.mark.parametrize(("pairs", "loss"), [(16, 1.0), (64, 1.0), (64, 2.0)])
def test_where_nothing_was_lost_it_is_the_rule_of_three(pairs: int, loss: float) -> None:
    found = upper(np.zeros(pairs), np.full(pairs, 3.0), loss)
    # The quantile of a beta distribution, from 9,999 draws.
    assert found == pytest.approx(loss * (1 - 0.05 ** (1 / pairs)), rel=0.04)


def test_a_harmless_model_passes_from_the_count_that_is_told() -> None:
    fewest = guard.fewest_pairs(LIMIT, 1.0, 0.05)
    assert fewest == 29
    assert 1 - 0.05 ** (1 / fewest) <= LIMIT < 1 - 0.05 ** (1 / (fewest - 1))


def test_the_bound_is_that_of_a_naive_loop() -> None:
    rng = np.random.default_rng(3)
    damage, importance = rng.gamma(1, 0.4, 20), 3 + rng.standard_normal(20)
    rows = (
        np.append(damage, max(importance.mean(), damage.max())),
        np.append(importance, importance.mean()),
    )
    draws = [
        (weights @ rows[0]) / (weights @ rows[1]) for weights in rng.dirichlet(np.ones(21), 20_000)
    ]
    assert upper(damage, importance)[0] == pytest.approx(np.quantile(draws, 0.95), rel=0.03)


def test_with_it_damage_on_few_pairs_is_not_passed() -> None:
    """One pair in ten loses all, at a limit of a tenth: without it 19 % pass wrongly."""
    rng = np.random.default_rng(0)
    importance = 3 * np.exp(0.4 * rng.standard_normal((400, 16)) - 0.08)
    damage = np.where(rng.random((400, 16)) < LIMIT, importance, 0)
    damage = damage + 0.03 * rng.standard_normal((400, 16))
    high = np.array([one.high for one in studentised.ratios(damage, importance).estimates])
    assert (high <= LIMIT).mean() > 0.12
    assert (np.maximum(high, upper(damage, importance)) <= LIMIT).mean() == 0


def test_a_limit_with_it_abstains_by_its_own_code_and_says_how_many_pairs_decide() -> None:
    few = measured(16, dcv=0.02)
    without, held = (
        judge(spec(), Limit("dcv.circuit", 0.12, guard=loss), few) for loss in (0.0, 1.0)
    )
    assert without.outcome is Outcome.PASS
    (note,) = [one for one in without.notes if one.code == "unguarded"]
    assert (note.facts["pairs"], note.facts["count"]) == (24, 16)
    assert (held.outcome, held.code) == (Outcome.ABSTAIN, Code.GUARDED)
    assert held.estimate == without.estimate
    assert held.facts["guarded"] > 0.12 >= held.estimate.high
    assert held.facts["wanted"] > 16
    many = judge(spec(), Limit("dcv.circuit", 0.12, guard=1.0), measured(64, dcv=0.02))
    assert many.outcome is Outcome.PASS
    loose = judge(spec(), Limit("dcv.circuit", 1.0), few)  # one pair cannot break it
    assert loose.outcome is Outcome.PASS
    assert not [one for found in (many, loose) for one in found.notes if one.code == "unguarded"]


@QUICK
@given(st.integers(0, 99), st.floats(0, 0.3), st.sampled_from(["dcv.circuit", "dcv.head"]))
def test_it_never_makes_a_verdict_better_nor_touches_a_fail(
    seed: int, dose: float, key: str
) -> None:
    data = measured(32, dcv=dose, heads=dict.fromkeys(HEADS, dose), noise=0.3)
    ranks = (Outcome.PASS, Outcome.ABSTAIN, Outcome.FAIL)
    outcomes = [
        judge(spec(), Limit(key, LIMIT, guard=loss), data, seed=seed).outcome
        for loss in (0.0, 1.0, 2.0)
    ]
    places = [ranks.index(one) for one in outcomes]
    assert places == sorted(places)
    assert (Outcome.FAIL in outcomes) == (outcomes[0] is Outcome.FAIL)


def test_raising_a_limit_never_takes_a_pass_away() -> None:
    data = measured(32, dcv=0.05, noise=0.2)
    found = [
        judge(spec(), Limit("dcv.circuit", most, guard=1.0), data).outcome is Outcome.PASS
        for most in (0.05, 0.1, 0.15, 0.2, 0.3)
    ]
    assert found == sorted(found)
    assert found[-1]


def test_a_negative_importance_is_guarded_too() -> None:
    data = measured(32, dcv=0.02)
    against = changed(
        data,
        circuit_importance=-read(data, "circuit_importance"),
        circuit_damage=-read(data, "circuit_damage"),
    )
    one, two = (judge(spec(), Limit("dcv.circuit", 0.2, guard=1.0), x) for x in (data, against))
    assert two.facts["guarded"] == pytest.approx(one.facts["guarded"], abs=0.05)


FILE = """\
forgetguard: 1
capability: c
pairs: {{task: ioi, count: {count}, seed: 0}}
readout: logit_diff
circuit: [L0H0]
limits:
  {limit}
"""


def parsed(limit: str, count: int = 64) -> Limit:
    (found,) = parse_gate(FILE.format(limit=limit, count=count), Path("a.circuit.yaml")).limits
    return found


def test_a_file_declares_it_by_limit_and_it_is_written_again() -> None:
    assert parsed("dcv.circuit: {max: 0.1, guard: 1}").guard == 1
    assert parsed("dcv.circuit: {max: 0.1}").guard == 0
    text = FILE.format(limit="readout.drop: {max: 0.2, guard: 2.0}", count=64)
    assert "guard: 2.0" in dump(parse_gate(text, Path("a.circuit.yaml")))


@pytest.mark.parametrize(
    ("limit", "count", "says"),
    [
        ("accuracy.drop: {max: 0.1, guard: 1}", 64, "guard"),
        ("dcv.circuit: {max: 0.1, guard: -1}", 64, "between 0 and 10"),
        ("dcv.circuit: {max: 0.1, guard: 1}", 28, "29 pairs or more"),
        ("dcv.circuit: {max: 0.0, guard: 1}", 64, "a max above 0"),
    ],
)
def test_what_no_model_could_pass_is_refused(limit: str, count: int, says: str) -> None:
    with pytest.raises(SpecificationError, match=says) as raised:
        parsed(limit, count)
    assert "a.circuit.yaml:7" in str(raised.value)
