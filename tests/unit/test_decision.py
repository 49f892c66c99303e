"""A verdict follows from the interval, names who did it, and never passes what it cannot see."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forgetguard.gate.decision import Control, Measurement, judge
from forgetguard.gate.recorded import Recorded

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate.schema import LIMITS, CircuitSpec, InlinePairs, Limit
from forgetguard.gate.verdict import Outcome, Verdict

HEADS = (Head(2, 1), Head(0, 4), Head(3, 0))


def spec(heads: tuple[Head, ...] = HEADS, readout: str = "logit_diff", **more: Any) -> CircuitSpec:
    texts = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
    return CircuitSpec("c", "ioi", InlinePairs(texts), readout, heads, (), **more)


def measured(
    pairs: int = 64,
    dcv: float = 0.0,
    heads: dict[Head, float] | None = None,
    weak: tuple[Head, ...] = (),
    noise: float = 0.3,
    seed: int = 0,
    templates: int = 0,
) -> Measurement:
    """A capability the base can do, with a circuit's and heads' DCV as asked; `weak` heads have an
    importance of zero, up to noise, and then `heads` is their damage as a share of the circuit's
    importance."""
    rng = np.random.default_rng(seed)

    def noisy(level: float, spread: float) -> Any:
        return level + spread * rng.standard_normal(pairs)

    importance = noisy(3, 0.5)
    importances = {head: noisy(1, 0.2) for head in HEADS}
    for head in weak:
        importances[head] = noisy(0, 0.2)
        importances[head] -= importances[head].mean()
    damages = {}
    for head in HEADS:
        share = (heads or {}).get(head, 0.0)
        scale = importance if head in weak else importances[head]
        damages[head] = share * scale + (noisy(0, noise * 0.3) if share else 0.0)
    readout = noisy(5, 0.5)
    damage = dcv * importance + (noisy(0, noise) if dcv else 0.0)
    return Measurement(
        pairs=tuple(
            PromptPair(
                f"clean {i:03}", f"counter {i:03}", " y", " n",
                template=f"t{i % templates}" if templates else "",
            )
            for i in range(pairs)
        ),
        base_readout=readout,
        tuned_readout=readout - damage,
        base_correct=np.ones(pairs, dtype=bool),
        tuned_correct=np.ones(pairs, dtype=bool),
        circuit_importance=importance,
        circuit_damage=damage,
        head_importance=importances,
        head_damage=damages,
        all_importance=2 * importance,
        all_damage=2 * damage,
    )  # fmt: skip


def verdict(key: str, maximum: float, data: Measurement, **more: Any) -> Verdict:
    return judge(more.pop("spec", spec()), Limit(key, maximum, 7), data, **more)


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_a_byte_copy_reads_exactly_zero_and_passes_the_tightest_limit(key: str) -> None:
    found = verdict(key, 0.0, measured())
    assert found.outcome is Outcome.PASS
    assert found.estimate is not None
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (0.0, 0.0, 0.0)
    assert found.worst_pairs == ()


@pytest.mark.parametrize(
    ("dcv", "outcome"), [(0.02, Outcome.PASS), (0.10, Outcome.ABSTAIN), (0.3, Outcome.FAIL)]
)
def test_a_circuit_is_judged_by_where_its_interval_lies(dcv: float, outcome: Outcome) -> None:
    found = verdict("dcv.circuit", 0.10, measured(dcv=dcv, noise=0.1))
    assert found.outcome is outcome
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(dcv, abs=0.02)
    assert (found.limit, found.bound, found.line) == ("dcv.circuit", 0.10, 7)
    assert "[" in found.reason


def test_an_undecided_circuit_says_how_many_pairs_would_decide_and_they_do() -> None:
    def at(pairs: int, seed: int) -> Verdict:
        return verdict("dcv.circuit", 0.15, measured(pairs, dcv=0.10, noise=0.4, seed=seed))

    found = at(32, 1)
    assert found.outcome is Outcome.ABSTAIN
    wanted = int(found.reason.split("about ")[1].split(" pairs")[0])
    assert 32 < wanted < 1000
    # Four times as many leave no doubt, whichever way the first sample erred.
    assert at(4 * wanted, 2).outcome is not Outcome.ABSTAIN


def test_a_dead_head_is_found_and_named_first() -> None:
    found = verdict("dcv.head", 0.25, measured(heads={HEADS[1]: 0.8, HEADS[2]: 0.05}))
    assert found.outcome is Outcome.FAIL
    assert "L0H4" in found.reason
    assert found.worst_heads[0].head == "L0H4"
    assert found.estimate == found.worst_heads[0].dcv
    assert {head.head for head in found.worst_heads} == {str(head) for head in HEADS}


def test_every_head_that_is_beyond_is_named() -> None:
    found = verdict("dcv.head", 0.25, measured(heads={HEADS[1]: 0.8, HEADS[2]: 0.6}))
    assert "L0H4" in found.reason
    assert "L3H0" in found.reason
    assert "L2H1" not in found.reason


def test_heads_within_the_limit_pass_and_the_nearest_is_named() -> None:
    found = verdict("dcv.head", 0.25, measured(heads={HEADS[0]: 0.1, HEADS[2]: 0.05}))
    assert found.outcome is Outcome.PASS
    assert "L2H1" in found.reason


def test_a_head_that_would_fail_alone_is_undecided_among_many() -> None:
    many = tuple(Head(layer, index) for layer in range(6) for index in range(6))
    rng = np.random.default_rng(0)
    data = measured(32)
    importance = {head: 1 + 0.2 * rng.standard_normal(32) for head in many}
    damage = {head: 0.1 * rng.standard_normal(32) for head in many}
    spread = rng.standard_normal(32)
    damage[many[0]] = 0.45 * importance[many[0]] + 0.5 * (spread - spread.mean()) / spread.std()
    data = replace(data, head_importance=importance, head_damage=damage)
    alone = verdict("dcv.head", 0.25, data, spec=spec(many[:1]))
    among = verdict("dcv.head", 0.25, data, spec=spec(many))
    assert alone.outcome is Outcome.FAIL
    assert among.outcome is Outcome.ABSTAIN
    assert among.head == str(many[0])
    assert "36 heads" in among.reason


def test_a_head_without_importance_has_no_dcv_and_is_named_in_a_pass() -> None:
    found = verdict("dcv.head", 0.25, measured(weak=HEADS[:1]))
    assert found.outcome is Outcome.PASS
    assert any("L2H1" in note for note in found.notes)
    weak = next(head for head in found.worst_heads if head.head == "L2H1")
    assert weak.dcv is None
    assert weak.note


@pytest.mark.parametrize(
    ("share", "outcome"), [(0.01, Outcome.PASS), (0.025, Outcome.ABSTAIN), (0.06, Outcome.FAIL)]
)
def test_new_harm_by_a_head_without_importance_is_held_to_the_floor(
    share: float, outcome: Outcome
) -> None:
    # 0.25 of 10 % of the circuit is 2.5 % of the circuit.
    data = measured(weak=HEADS[:1], heads={HEADS[0]: share}, noise=0.05)
    found = verdict("dcv.head", 0.25, data)
    assert (found.outcome, found.head) == (outcome, "L2H1")
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(share / 0.10, rel=0.1)


@pytest.mark.parametrize(("share", "outcome"), [(0.06, Outcome.PASS), (0.6, Outcome.FAIL)])
def test_without_a_floor_such_harm_counts_as_a_share_of_the_whole_circuit(
    share: float, outcome: Outcome
) -> None:
    data = measured(weak=HEADS[:1], heads={HEADS[0]: share})
    found = judge(spec(), Limit("dcv.head", 0.25, floor=0.0), data)
    assert (found.outcome, found.head) == (outcome, "L2H1")


def test_where_no_head_is_measurable_only_a_floor_decides() -> None:
    data = measured(weak=HEADS)
    found = judge(spec(), Limit("dcv.head", 0.25, floor=0.0), data)
    assert found.outcome is Outcome.ABSTAIN
    assert found.estimate is None
    assert verdict("dcv.head", 0.25, data).outcome is Outcome.PASS
    harmed = measured(weak=HEADS, heads={HEADS[1]: 0.2}, noise=0.05)
    assert verdict("dcv.head", 0.25, harmed).outcome is Outcome.FAIL


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head"])
def test_a_circuit_without_importance_abstains_even_when_nothing_changed(key: str) -> None:
    data = measured()
    assert data.circuit_importance is not None
    flat = data.circuit_importance - data.circuit_importance.mean()
    found = verdict(key, 10.0, replace(data, circuit_importance=flat))
    assert found.outcome is Outcome.ABSTAIN
    assert found.estimate is None
    assert "importance" in found.reason


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_a_capability_the_base_cannot_do_abstains_loudly(key: str) -> None:
    data = measured()
    wrong = replace(data, base_correct=np.arange(64) % 3 == 0)
    assert "THE BASE CANNOT DO 'ioi'" in verdict(key, 1.0, wrong).reason
    unsure = replace(data, base_readout=data.base_readout - data.base_readout.mean() + 0.01)
    found = verdict(key, 1.0, unsure)
    assert found.outcome is Outcome.ABSTAIN
    assert "THE BASE CANNOT DO 'ioi'" in found.reason


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_seven_pairs_decide_nothing(key: str) -> None:
    assert verdict(key, 1.0, measured(7)).outcome is Outcome.ABSTAIN
    assert verdict(key, 1.0, measured(8)).outcome is Outcome.PASS


ARRAYS = [
    "base_readout", "tuned_readout", "circuit_importance", "circuit_damage", "head_importance",
    "head_damage",
]  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_an_error_and_no_verdict(name: str, bad: float) -> None:
    data = measured()
    value = getattr(data, name)
    array = np.array(value[HEADS[0]] if isinstance(value, dict) else value)
    array[3] = bad
    broken: Any = value | {HEADS[0]: array} if isinstance(value, dict) else array
    changed: dict[str, Any] = {name: broken}
    for key in ("dcv.circuit", "accuracy.drop"):
        with pytest.raises(MeasurementError, match=r"not finite on 1 of 64 .*'clean 003'"):
            verdict(key, 1.0, replace(data, **changed))


def test_arrays_of_another_length_are_an_error() -> None:
    data = measured()
    with pytest.raises(MeasurementError, match=r"shape \(63,\) for 64 pairs"):
        verdict("dcv.circuit", 1.0, replace(data, tuned_readout=data.tuned_readout[:-1]))


def test_no_pair_at_all_is_an_error() -> None:
    empty = replace(measured(), pairs=())
    with pytest.raises(MeasurementError, match="no prompt pair was measured"):
        verdict("accuracy.drop", 1.0, empty)


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("dcv.circuit", {"circuit_damage": None}),
        ("dcv.all", {"all_damage": None}),
        ("dcv.circuit", {"circuit_importance": None}),
        ("dcv.head", {"head_damage": {}}),
        ("dcv.head", {"head_importance": {HEADS[0]: np.ones(64)}}),
    ],
)
def test_what_was_not_measured_is_not_judged(key: str, gone: dict[str, Any]) -> None:
    with pytest.raises(MeasurementError, match="not measured"):
        verdict(key, 1.0, replace(measured(), **gone))


def test_behaviour_is_judged_without_any_patching() -> None:
    data = replace(
        measured(), circuit_damage=None, circuit_importance=None, head_damage={}, head_importance={}
    )
    assert verdict("accuracy.drop", 0.1, data).outcome is Outcome.PASS
    assert verdict("readout.drop", 0.1, data).outcome is Outcome.PASS


def test_an_unchanged_accuracy_is_no_pass_when_the_readouts_moved() -> None:
    data = measured(dcv=0.02)
    assert verdict("accuracy.drop", 0.02, data).outcome is Outcome.ABSTAIN
    assert "149 pairs" in verdict("accuracy.drop", 0.02, data).reason
    assert verdict("accuracy.drop", 0.05, data).outcome is Outcome.PASS


def test_a_lost_accuracy_fails() -> None:
    data = replace(measured(dcv=0.02), tuned_correct=np.arange(64) % 4 != 0)
    found = verdict("accuracy.drop", 0.02, data)
    assert found.outcome is Outcome.FAIL
    assert "100.0% to 75.0%" in found.reason


def test_a_lost_readout_fails_for_either_sign_of_the_readout() -> None:
    data = measured()
    halved = replace(data, tuned_readout=data.base_readout / 2)
    assert verdict("readout.drop", 0.1, halved).outcome is Outcome.FAIL
    logs = replace(data, base_readout=-data.base_readout, tuned_readout=-2 * data.base_readout)
    found = verdict("readout.drop", 0.1, logs, spec=spec(readout="logprob"))
    assert found.outcome is Outcome.FAIL
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(1.0)


def test_the_worst_pairs_are_those_that_lost_most() -> None:
    data = measured(dcv=0.3)
    found = verdict("dcv.circuit", 0.1, data, worst=3)
    assert data.circuit_damage is not None
    expected = [f"clean {i:03}" for i in np.argsort(-data.circuit_damage)[:3]]
    assert [pair.clean for pair in found.worst_pairs] == expected
    first = found.worst_pairs[0]
    assert first.loss == pytest.approx(float(data.circuit_damage.max()))


def test_over_the_reference_only_the_difference_counts() -> None:
    data = measured(dcv=0.4, heads={HEADS[0]: 0.5})
    same = replace(
        data, reference_circuit_damage=data.circuit_damage, reference_head_damage=data.head_damage
    )
    for key in ("dcv.circuit.over_reference", "dcv.head.over_reference"):
        assert verdict(key, 0.0, same).outcome is Outcome.PASS
        harmless = replace(
            data,
            reference_circuit_damage=np.zeros(64),
            reference_head_damage={head: np.zeros(64) for head in HEADS},
        )
        assert verdict(key, 0.05, harmless).outcome is Outcome.FAIL
        with pytest.raises(SpecificationError, match="reference="):
            verdict(key, 0.05, data)


def test_a_circuit_that_carries_little_or_works_against_is_noted() -> None:
    data = measured(dcv=0.01)
    assert data.circuit_importance is not None
    small = replace(data, circuit_importance=data.circuit_importance * 0.05)
    assert any("carries" in note for note in verdict("dcv.circuit", 1.0, small).notes)
    against = replace(data, circuit_importance=-data.circuit_importance)
    assert any("RAISES" in note for note in verdict("dcv.circuit", 1.0, against).notes)
    assert verdict("dcv.circuit", 1.0, data).notes == ()


def test_dropped_pairs_and_given_notes_are_told() -> None:
    found = verdict("dcv.circuit", 1.0, replace(measured(), dropped=6, notes=("vocabulary",)))
    assert found.notes == ("vocabulary", "6 of 70 pairs were dropped")


def test_pairs_of_many_templates_are_resampled_by_template() -> None:
    loose = verdict("dcv.circuit", 1.0, measured(dcv=0.1, templates=7)).estimate
    tied = verdict("dcv.circuit", 1.0, measured(dcv=0.1, templates=8)).estimate
    alone = verdict("dcv.circuit", 1.0, measured(dcv=0.1)).estimate
    assert loose == alone
    assert tied != alone
    notes = verdict("dcv.circuit", 1.0, measured(dcv=0.1, templates=7)).notes
    assert any("7 templates" in note for note in notes)


def shuffled(data: Measurement, order: Any) -> Measurement:
    changed: dict[str, Any] = {"pairs": tuple(data.pairs[i] for i in order)}
    for one in fields(data):
        value = getattr(data, one.name)
        if isinstance(value, np.ndarray):
            changed[one.name] = value[order]
        elif isinstance(value, dict):
            changed[one.name] = {head: value[head][order] for head in reversed(value)}
    return replace(data, **changed)


@pytest.mark.parametrize("templates", [0, 16])
@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_the_order_of_pairs_and_heads_changes_nothing(key: str, templates: int) -> None:
    data = measured(dcv=0.1, heads={HEADS[0]: 0.3, HEADS[2]: 0.2}, templates=templates)
    order = np.random.default_rng(1).permutation(64)
    first = verdict(key, 0.25, data)
    again = verdict(key, 0.25, shuffled(data, order), spec=spec(HEADS[::-1]))
    assert first == again
    assert first == verdict(key, 0.25, data)


@pytest.mark.parametrize("key", sorted(LIMITS))
def test_raising_a_limit_never_turns_a_pass_into_anything_else(key: str) -> None:
    order = {Outcome.FAIL: 0, Outcome.ABSTAIN: 1, Outcome.PASS: 2}
    data = measured(dcv=0.1, heads={HEADS[0]: 0.3, HEADS[2]: 0.1}, weak=HEADS[1:2])
    data = replace(
        data,
        tuned_correct=np.arange(64) % 8 != 0,
        reference_circuit_damage=np.zeros(64),
        reference_head_damage={head: np.zeros(64) for head in HEADS},
        baseline=Recorded(
            tuned_readout=data.base_readout,
            tuned_correct=data.base_correct,
            circuit_damage=np.zeros(64),
            head_damage={head: np.zeros(64) for head in HEADS},
        ),
    )
    ladder = [order[verdict(key, maximum, data).outcome] for maximum in np.linspace(0, 0.6, 7)]
    assert ladder == sorted(ladder)
    assert ladder[-1] == 2


def test_a_limit_nobody_knows_is_refused() -> None:
    with pytest.raises(SpecificationError, match=r"did you mean 'dcv.circuit'"):
        verdict("dcv.circuits", 0.1, measured())


def test_a_verdict_says_where_its_limit_was_declared() -> None:
    found = verdict("dcv.circuit", 0.1, measured(), spec=spec(path=Path("x/c.circuit.yaml")))
    assert (found.file, found.line) == (str(Path("x/c.circuit.yaml")), 7)
    json.dumps([found.reason, *found.notes])


def test_a_limit_on_every_head_says_which_one_decided() -> None:
    limit = Limit("dcv.head", 0.25)
    failed = judge(spec(), limit, measured(heads={Head(3, 0): 0.9}))
    assert (failed.outcome, failed.head) == (Outcome.FAIL, "L3H0")
    passed = judge(spec(), limit, measured(heads={Head(0, 4): 0.1}))
    assert (passed.outcome, passed.head) == (Outcome.PASS, "L0H4")
    assert judge(spec(), Limit("dcv.circuit", 0.25), measured()).head == ""


def test_a_head_whose_damage_is_its_own_is_named_before_those_that_inherit_more() -> None:
    limit = Limit("dcv.head", 0.25)
    data = measured(heads={HEADS[0]: 0.5, HEADS[1]: 0.8, HEADS[2]: 0.3})
    nothing = {head: np.zeros(64) for head in HEADS}
    own = replace(data, head_own_damage=nothing | {HEADS[0]: data.head_damage[HEADS[0]]})
    order = [evidence.head for evidence in judge(spec(), limit, own).worst_heads]
    assert order == [str(HEADS[0]), str(HEADS[1]), str(HEADS[2])]
    slight = replace(data, head_own_damage=nothing | {HEADS[0]: 0.05 * data.head_damage[HEADS[0]]})
    for evidence in (data, slight):
        worst = judge(spec(), limit, evidence).worst_heads
        assert [one.head for one in worst] == [str(HEADS[1]), str(HEADS[0]), str(HEADS[2])]
    (first, *_) = judge(spec(), limit, own).worst_heads
    assert first.own is not None
    assert first.dcv is not None
    assert first.own.value == pytest.approx(first.dcv.value)


def test_loss_outside_the_circuit_fails_all_heads_and_not_the_circuit() -> None:
    data = measured(dcv=0.02)
    assert data.all_importance is not None
    lost = replace(data, all_damage=0.4 * data.all_importance)
    limits = {key: Limit(key, 0.10) for key in ("dcv.circuit", "dcv.all")}
    assert judge(spec(), limits["dcv.circuit"], lost).outcome is Outcome.PASS
    whole = judge(spec(), limits["dcv.all"], lost)
    assert whole.outcome is Outcome.FAIL
    assert whole.estimate is not None
    assert whole.estimate.value == pytest.approx(0.4)
    noise = np.random.default_rng(1).standard_normal(len(data.pairs))
    worthless = replace(data, all_importance=noise - noise.mean())
    assert judge(spec(), limits["dcv.all"], worthless).outcome is Outcome.ABSTAIN


def test_a_verdict_says_from_which_value_on_it_would_fail() -> None:
    found = verdict("dcv.circuit", 0.10, measured(dcv=0.05, noise=0.3))
    assert found.detectable is not None
    outcomes = [
        verdict("dcv.circuit", 0.10, measured(dcv=found.detectable, noise=0.3, seed=seed)).outcome
        for seed in range(1, 101)
    ]
    # 80 % of 100; the estimate itself rests on one sample of 64 pairs.
    assert 60 <= outcomes.count(Outcome.FAIL) <= 95
    assert verdict("dcv.circuit", 0.10, measured()).detectable is None  # no spread to go by


def test_more_limits_need_more_damage_to_be_seen() -> None:
    data = measured(dcv=0.05, heads={HEADS[0]: 0.1}, noise=0.1)
    data = replace(data, tuned_correct=np.arange(64) % 16 != 0)
    for key in ("dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"):
        one, many = (verdict(key, 0.2, data, family=family) for family in (1, 20))
        assert one.detectable is not None
        assert many.detectable is not None
        assert 0.2 < one.detectable < many.detectable
        assert (one.family, many.family) == (1, 20)
        assert one.estimate == many.estimate


def test_a_fail_among_few_limits_is_undecided_among_many_and_says_so() -> None:
    data = measured(32, dcv=0.14, noise=0.25)
    assert verdict("dcv.circuit", 0.10, data).outcome is Outcome.FAIL
    found = verdict("dcv.circuit", 0.10, data, family=200)
    assert found.outcome is Outcome.ABSTAIN
    assert "corrected for 200 limits" in found.reason
    with pytest.raises(SpecificationError, match="family of 0"):
        verdict("dcv.circuit", 0.10, data, family=0)


def saturated(probability: float, **more: Any) -> Measurement:
    """A capability whose readout is a log-probability near its ceiling."""
    data = measured(**more)
    assert data.circuit_importance is not None
    readout = np.full(64, np.log(probability))
    return replace(data, base_readout=readout, tuned_readout=readout - 1e-6)


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "dcv.all", "readout.drop"])
def test_a_saturated_readout_passes_nothing(key: str) -> None:
    logprob = spec(readout="logprob")
    found = verdict(key, 0.5, saturated(0.95), spec=logprob)
    assert found.outcome is Outcome.ABSTAIN
    assert "THE READOUT IS SATURATED" in found.reason
    assert verdict(key, 0.5, saturated(0.6), spec=logprob).outcome is Outcome.PASS


def test_what_a_saturated_readout_shows_is_real() -> None:
    logprob = spec(readout="logprob")
    data = saturated(0.95, dcv=0.5, heads={HEADS[0]: 0.8})
    assert verdict("dcv.circuit", 0.10, data, spec=logprob).outcome is Outcome.FAIL
    assert verdict("dcv.head", 0.10, data, spec=logprob).outcome is Outcome.FAIL


def test_a_saturated_readout_leaves_accuracy_alone() -> None:
    found = verdict("accuracy.drop", 0.10, saturated(0.95), spec=spec(readout="logprob"))
    assert found.outcome is Outcome.PASS


def test_a_saturated_readout_hides_a_loss_that_logits_show() -> None:
    """Why it abstains. With two answers log p = -log(1 + exp(-margin)). The circuit turns -margin
    into margin; half of the margin is lost, a DCV of 0.25 in logits."""
    shown = []
    for margin in (0.5, 2.2, 5.0):
        base, patched, corrupt = (-np.log1p(np.exp(-one)) for one in (margin, margin / 2, -margin))
        shown.append((base - patched) / (base - corrupt))
    assert shown[0] == pytest.approx(0.2, abs=0.02)
    assert shown[1] == pytest.approx(0.08, abs=0.01)  # p = 0.9, where the readout is refused
    assert shown[2] == pytest.approx(0.014, abs=0.002)  # p = 0.993


def test_controls_are_shares_of_this_circuits_importance_and_decide_nothing() -> None:
    data = measured(dcv=0.3)
    assert data.circuit_importance is not None
    other = Control("other", (Head(1, 1),), 0.7 * data.circuit_importance, "1 of 2")
    none = Control("random", (), None, "no more exist")
    with_them = replace(data, controls=(other, none))
    found = verdict("dcv.circuit", 0.1, with_them)
    first, second = found.controls
    assert (first.name, first.members, first.note) == ("other", ("L1H1",), "1 of 2")
    assert first.dcv is not None
    assert first.dcv.interval == (pytest.approx(0.7), pytest.approx(0.7))
    assert (second.dcv, second.note) == (None, "no more exist")
    assert replace(found, controls=()) == verdict("dcv.circuit", 0.1, data)
    assert verdict("dcv.head", 0.1, with_them).controls == ()


def test_the_order_of_pairs_does_not_change_a_control() -> None:
    data = measured(dcv=0.3)
    damage = np.random.default_rng(5).standard_normal(64)
    order = np.random.default_rng(1).permutation(64)
    there = replace(data, controls=(Control("other", (Head(1, 1),), damage),))
    again = replace(
        shuffled(data, order), controls=(Control("other", (Head(1, 1),), damage[order]),)
    )
    assert verdict("dcv.circuit", 0.1, there) == verdict("dcv.circuit", 0.1, again)
