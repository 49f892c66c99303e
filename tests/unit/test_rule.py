"""A verdict follows from the interval, names who did it, and never passes what it cannot see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_samples import HEADS, changed, measured, read, remarks, spec

from forgetguard.anatomy.members import Head
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import power
from forgetguard.gate.declaration import Limit
from forgetguard.gate.estimate import Case
from forgetguard.gate.records import verdict_to_dict
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Code, ControlEvidence, Outcome, Verdict
from forgetguard.measures import registry
from forgetguard.measures.measure import NATS, Estimator, Measure, Sampled, Series, Subjects
from forgetguard.measures.samples import Control, Key, Note, Samples

BY_PATCHING = ("dcv.circuit", "dcv.head", "dcv.all")
BY_READING = ("accuracy.drop", "readout.drop")
KEYS = [
    key
    for measure in BY_PATCHING + BY_READING
    for key in (measure, *(f"{measure}.over_{other}" for other in registry.MODIFIERS))
]


def verdict(key: str, maximum: float, data: Samples, **more: Any) -> Verdict:
    return judge(more.pop("spec", spec()), Limit(key, maximum, 7), data, **more)


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_a_byte_copy_reads_exactly_zero_and_passes_the_tightest_limit(key: str) -> None:
    found = verdict(key, 0.0, measured())
    assert found.outcome is Outcome.PASS
    assert found.estimate is not None
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (0.0, 0.0, 0.0)
    assert found.units == ()
    identical = key == "accuracy.drop"
    assert found.code is (Code.IDENTICAL if identical else Code.WITHIN)


@pytest.mark.parametrize(
    ("dcv", "outcome", "code"),
    [
        (0.02, Outcome.PASS, Code.WITHIN),
        (0.10, Outcome.ABSTAIN, Code.UNDECIDED),
        (0.3, Outcome.FAIL, Code.BEYOND),
    ],
)
def test_a_circuit_is_judged_by_where_its_interval_lies(
    dcv: float, outcome: Outcome, code: Code
) -> None:
    found = verdict("dcv.circuit", 0.10, measured(dcv=dcv, noise=0.1))
    assert (found.outcome, found.code) == (outcome, code)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(dcv, abs=0.02)
    assert (found.limit, found.bound, found.line) == ("dcv.circuit", 0.10, 7)
    # Alone in its family a limit fails on the bound that is shown.
    assert found.facts["corrected_low"] == found.estimate.low


def test_an_undecided_circuit_says_how_many_pairs_would_decide_and_they_do() -> None:
    def at(pairs: int, seed: int) -> Verdict:
        return verdict("dcv.circuit", 0.15, measured(pairs, dcv=0.10, noise=0.4, seed=seed))

    found = at(32, 1)
    assert found.outcome is Outcome.ABSTAIN
    wanted = found.facts["wanted"]
    assert 32 < wanted < 1000
    # Four times as many leave no doubt, whichever way the first sample erred.
    assert at(4 * wanted, 2).outcome is not Outcome.ABSTAIN


def test_a_dead_head_is_found_and_named_first() -> None:
    found = verdict("dcv.head", 0.25, measured(heads={HEADS[1]: 0.8, HEADS[2]: 0.05}))
    assert found.outcome is Outcome.FAIL
    assert (found.subject, found.facts["others"]) == ("L0H4", [])
    assert found.subjects[0].subject == "L0H4"
    assert found.estimate == found.subjects[0].value
    assert {one.subject for one in found.subjects} == {str(head) for head in HEADS}


def test_every_head_that_is_beyond_is_named() -> None:
    found = verdict("dcv.head", 0.25, measured(heads={HEADS[1]: 0.8, HEADS[2]: 0.6}))
    assert (found.subject, found.facts["others"], found.facts["of"]) == ("L0H4", ["L3H0"], 3)


def test_heads_within_the_limit_pass_and_the_nearest_is_named() -> None:
    found = verdict("dcv.head", 0.25, measured(heads={HEADS[0]: 0.1, HEADS[2]: 0.05}))
    assert found.outcome is Outcome.PASS
    assert (found.subject, found.facts["others"]) == ("L2H1", [])


@pytest.mark.parametrize(
    ("others", "outcome"), [(0.25, Outcome.ABSTAIN), (0.0, Outcome.FAIL), (-0.2, Outcome.FAIL)]
)
def test_a_head_that_fails_alone_is_undecided_only_among_many_that_may_be_at_the_limit(
    others: float, outcome: Outcome
) -> None:
    many = tuple(Head(layer, index) for layer in range(6) for index in range(6))
    rng = np.random.default_rng(0)
    data = measured(32)
    importance = {head: 1 + 0.2 * rng.standard_normal(32) for head in many}
    damage = {
        head: others * scale + 0.1 * rng.standard_normal(32) for head, scale in importance.items()
    }
    spread = rng.standard_normal(32)
    damage[many[0]] = 0.45 * importance[many[0]] + 0.5 * (spread - spread.mean()) / spread.std()
    data = changed(data, head_importance=importance, head_damage=damage)
    alone = verdict("dcv.head", 0.25, data, spec=spec(many[:1]))
    among = verdict("dcv.head", 0.25, data, spec=spec(many))
    assert alone.outcome is Outcome.FAIL
    assert among.outcome is outcome
    assert (among.subject, among.facts["of"]) == (str(many[0]), 36)
    assert among.estimate is not None
    assert among.facts["corrected_low"] < among.estimate.low


def test_a_head_without_importance_has_no_dcv_and_is_named_in_a_pass() -> None:
    found = verdict("dcv.head", 0.25, measured(weak=HEADS[:1]))
    assert found.outcome is Outcome.PASS
    floor = {"over": "floor", "floor": 0.1, "subjects": ["L2H1"]}
    assert remarks(found) == (Note("no_effect", {"count": 64}), Note("held_by_floor", floor))
    weak = next(one for one in found.subjects if one.subject == "L2H1")
    assert weak.value is None
    assert [note.code for note in weak.notes] == ["no_importance", "floored"]


@pytest.mark.parametrize(
    ("share", "outcome"), [(0.01, Outcome.PASS), (0.025, Outcome.ABSTAIN), (0.06, Outcome.FAIL)]
)
def test_new_harm_by_a_head_without_importance_is_held_to_the_floor(
    share: float, outcome: Outcome
) -> None:
    # 0.25 of 10 % of the circuit is 2.5 % of the circuit.
    data = measured(weak=HEADS[:1], heads={HEADS[0]: share}, noise=0.05)
    found = verdict("dcv.head", 0.25, data)
    assert (found.outcome, found.subject) == (outcome, "L2H1")
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(share / 0.10, rel=0.1)


@pytest.mark.parametrize(("share", "outcome"), [(0.06, Outcome.PASS), (0.6, Outcome.FAIL)])
def test_without_a_floor_such_harm_counts_as_a_share_of_the_whole_circuit(
    share: float, outcome: Outcome
) -> None:
    data = measured(weak=HEADS[:1], heads={HEADS[0]: share})
    found = judge(spec(), Limit("dcv.head", 0.25, floor=0.0), data)
    assert (found.outcome, found.subject) == (outcome, "L2H1")


def test_where_no_head_is_measurable_only_a_floor_decides() -> None:
    data = measured(weak=HEADS)
    found = judge(spec(), Limit("dcv.head", 0.25, floor=0.0), data)
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.NO_HEAD)
    assert found.estimate is None
    assert verdict("dcv.head", 0.25, data).outcome is Outcome.PASS
    harmed = measured(weak=HEADS, heads={HEADS[1]: 0.2}, noise=0.05)
    assert verdict("dcv.head", 0.25, harmed).outcome is Outcome.FAIL


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head"])
def test_a_circuit_without_importance_abstains_even_when_nothing_changed(key: str) -> None:
    data = measured()
    importance = read(data, "circuit_importance")
    found = verdict(key, 10.0, changed(data, circuit_importance=importance - importance.mean()))
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.NO_SCALE)
    assert found.estimate is None
    assert found.facts["low"] <= 0 <= found.facts["high"]


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_a_capability_the_base_cannot_do_abstains(key: str) -> None:
    data = measured()
    found = verdict(key, 1.0, changed(data, base_correct=np.arange(64) % 3 == 0))
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.BASE_WRONG)
    assert found.facts["value"] == 22 / 64
    assert found.facts["low"] < found.facts["value"] < found.facts["high"] < 0.5
    readout = read(data, "base_readout")
    found = verdict(key, 1.0, changed(data, base_readout=readout - readout.mean() + 0.01))
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.BASE_READOUT)
    assert found.facts["value"] == pytest.approx(0.01)
    found = verdict(key, 1.0, changed(data, base_counterfactual=readout + 0.01))
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.BASE_UNMOVED)
    assert found.facts["value"] == pytest.approx(-0.01)


@pytest.mark.parametrize("key", ["dcv.circuit", "accuracy.drop", "readout.drop"])
def test_a_base_that_answers_the_counterfactuals_all_but_alike_is_said_to_answer_from_a_prior(
    key: str,
) -> None:
    data = measured(dcv=0.05)
    readout = read(data, "base_readout")
    for effect, said in ((0.05, True), (0.11, False)):
        found = verdict(key, 0.5, changed(data, base_counterfactual=(1 - effect) * readout))
        notes = [one for one in found.notes if one.code == "answers_from_prior"]
        assert bool(notes) is said
        for one in notes:
            assert one.facts["effect"] == pytest.approx(0.05 * readout.mean())


def test_a_base_that_says_a_filler_word_first_has_the_capability() -> None:
    data = changed(measured(dcv=0.6), base_top1=np.zeros(64), tuned_top1=np.zeros(64))
    assert verdict("dcv.circuit", 0.1, data).outcome is Outcome.FAIL
    assert verdict("readout.drop", 0.9, data).outcome is Outcome.PASS


def test_what_a_base_can_do_in_part_is_measured_in_part() -> None:
    right = np.arange(64) % 4 != 0  # 75 %: above chance
    data = changed(measured(dcv=0.6), base_correct=right, tuned_correct=right)
    assert verdict("dcv.circuit", 0.1, data).outcome is Outcome.FAIL
    chance = changed(data, base_correct=np.arange(64) % 2 == 0)
    assert verdict("dcv.circuit", 0.1, chance).code is Code.BASE_WRONG


@pytest.mark.parametrize(
    ("key", "share", "maximum", "holds"),
    [
        ("top1.drop", 2, 0.10, False),
        ("top1.drop", 40, 0.10, True),
        ("accuracy.drop", 48, 0.30, False),  # 75 %, chance a half
        ("accuracy.drop", 48, 0.20, True),
    ],
)
def test_a_limit_that_allows_all_there_is_to_lose_says_so(
    key: str, share: int, maximum: float, holds: bool
) -> None:
    right = (np.arange(64) < share).astype(float)
    given = {"correct": right, "top1": right} if key.startswith("acc") else {"top1": right}
    both = {f"{role}_{name}": one for name, one in given.items() for role in ("base", "tuned")}
    data = changed(measured(), **both)
    data = changed(data, tuned_readout=read(data, "tuned_readout") - 0.01)
    notes = [one for one in verdict(key, maximum, data).notes if one.code == "cannot_fail"]
    assert bool(notes) is not holds


def test_top1_is_a_measure_of_its_own() -> None:
    first = np.ones(64)
    now = (np.arange(64) % 2).astype(float)
    data = changed(measured(), base_top1=first, tuned_top1=now)
    data = changed(data, tuned_readout=read(data, "tuned_readout") - 0.01)
    found = verdict("top1.drop", 0.1, data)
    assert found.outcome is Outcome.FAIL
    assert found.estimate is not None
    assert found.estimate.value == 0.5
    assert verdict("accuracy.drop", 0.1, data).outcome is Outcome.PASS


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_seven_pairs_decide_nothing(key: str) -> None:
    found = verdict(key, 1.0, replace(measured(7), dropped=2))
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.TOO_FEW)
    assert found.facts == {"count": 7, "dropped": 2, "least": 8}
    assert verdict(key, 1.0, measured(8)).outcome is Outcome.PASS


ARRAYS = [
    "base_readout", "tuned_readout", "circuit_importance", "circuit_damage", "head_importance",
    "head_damage",
]  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_an_error_and_no_verdict(name: str, bad: float) -> None:
    data = measured()
    head = HEADS[0] if name.startswith("head_") else None
    array = read(data, name, head).copy()
    array[3] = bad
    broken = changed(data, **{name: {head: array} if head else array})
    for key in ("dcv.circuit", "accuracy.drop"):
        with pytest.raises(MeasurementError, match=r"not finite on 1 of 64 .*'clean 003'"):
            verdict(key, 1.0, broken)


def test_arrays_of_another_length_are_an_error() -> None:
    data = measured()
    with pytest.raises(MeasurementError, match=r"shape \(63,\) for 64 units"):
        verdict("dcv.circuit", 1.0, changed(data, tuned_readout=read(data, "tuned_readout")[:-1]))


def test_no_pair_at_all_is_an_error() -> None:
    empty = replace(measured(), units=())
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
        verdict(key, 1.0, changed(measured(), **gone))


def test_behaviour_is_judged_without_any_patching() -> None:
    data = changed(
        measured(), circuit_damage=None, circuit_importance=None, head_damage={}, head_importance={}
    )
    assert verdict("accuracy.drop", 0.1, data).outcome is Outcome.PASS
    assert verdict("readout.drop", 0.1, data).outcome is Outcome.PASS


def test_an_unchanged_accuracy_is_no_pass_when_the_readouts_moved() -> None:
    data = measured(dcv=0.02)
    found = verdict("accuracy.drop", 0.02, data)
    assert (found.outcome, found.facts["wanted"]) == (Outcome.ABSTAIN, 149)
    assert verdict("accuracy.drop", 0.05, data).outcome is Outcome.PASS


def test_a_lost_accuracy_fails() -> None:
    data = changed(measured(dcv=0.02), tuned_correct=np.arange(64) % 4 != 0)
    found = verdict("accuracy.drop", 0.02, data)
    assert found.outcome is Outcome.FAIL
    assert (found.facts["before"], found.facts["now"]) == (1.0, 0.75)


def test_a_lost_readout_fails_for_either_sign_of_the_readout() -> None:
    data = measured()
    readout = read(data, "base_readout")
    halved = changed(data, tuned_readout=readout / 2)
    assert verdict("readout.drop", 0.1, halved).outcome is Outcome.FAIL
    logs = changed(data, base_readout=-readout, tuned_readout=-2 * readout)
    found = verdict("readout.drop", 0.1, logs, spec=spec(readout="logprob"))
    assert found.outcome is Outcome.FAIL
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(1.0)


def test_the_units_are_those_that_lost_most() -> None:
    data = measured(dcv=0.3)
    found = verdict("dcv.circuit", 0.1, data, worst=3)
    damage = read(data, "circuit_damage")
    worst = np.argsort(-damage)[:3].tolist()
    assert [unit.clean for unit in found.units] == [f"clean {place:03}" for place in worst]
    first, place = found.units[0], worst[0]
    assert (first.loss, first.answer, first.distractor) == (damage.max(), " y", " n")
    base, tuned = (float(read(data, name)[place]) for name in ("base_readout", "tuned_readout"))
    assert (first.base, first.patched, first.tuned) == (base, base - damage.max(), tuned)


@pytest.mark.parametrize("measure", BY_PATCHING)
@pytest.mark.parametrize("over", ["reference", "baseline"])
def test_over_another_model_only_the_difference_counts(measure: str, over: str) -> None:
    key = f"{measure}.over_{over}"
    data = measured(dcv=0.4, heads={HEADS[0]: 0.5})
    name = {"reference": "reference", "baseline": "recorded"}[over]
    now = {head: read(data, "head_damage", head) for head in HEADS}

    def with_other(factor: float) -> Samples:
        found = {
            f"{name}_circuit_damage": factor * read(data, "circuit_damage"),
            f"{name}_all_damage": factor * read(data, "all_damage"),
            f"{name}_head_damage": {head: factor * one for head, one in now.items()},
        }
        return changed(data, **found)

    assert verdict(key, 0.0, with_other(1.0)).outcome is Outcome.PASS
    found = verdict(key, 0.05, with_other(0.0))
    assert found.outcome is Outcome.FAIL
    assert found.estimate == verdict(measure, 0.05, data).estimate  # over nothing it is all of it
    with pytest.raises(SpecificationError, match=rf"needs a .*{over}"):
        verdict(key, 0.05, data)


@pytest.mark.parametrize(("now", "then"), [(0.5, 0.25), (0.25, 0.25)])
def test_a_readout_over_the_reference_is_what_was_lost_beyond_it(now: float, then: float) -> None:
    data = measured()
    readout = read(data, "base_readout")
    both = changed(data, tuned_readout=(1 - now) * readout, reference_readout=(1 - then) * readout)
    found = verdict("readout.drop.over_reference", 0.1, both)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(now - then)
    assert found.outcome is (Outcome.FAIL if now > then else Outcome.PASS)


def test_a_circuit_that_carries_little_or_works_against_is_noted() -> None:
    data = measured(dcv=0.01)
    importance, readout = read(data, "circuit_importance"), read(data, "base_readout")
    little = verdict("dcv.circuit", 1.0, changed(data, circuit_importance=0.05 * importance))
    (note,) = remarks(little)
    assert note.code == "small_circuit"
    assert note.facts["share"] == pytest.approx(0.05 * importance.mean() / readout.mean())
    (note,) = remarks(verdict("dcv.circuit", 1.0, changed(data, circuit_importance=-importance)))
    assert note == Note("circuit_works_against")
    assert remarks(verdict("dcv.circuit", 1.0, data)) == ()


def test_dropped_pairs_and_given_notes_are_told() -> None:
    given = Note("checkpoint", {"why": "vocabulary"})
    found = verdict("dcv.circuit", 1.0, replace(measured(dcv=0.1), dropped=6, notes=(given,)))
    assert remarks(found) == (given, Note("dropped", {"dropped": 6, "of": 70}))


def test_pairs_of_one_template_are_not_taken_for_independent() -> None:
    single, few, many, alone = (
        verdict("dcv.circuit", 1.0, measured(dcv=0.1, templates=count)) for count in (1, 7, 8, 0)
    )
    assert single.estimate == alone.estimate
    assert len({one.estimate for one in (few, many, alone)}) == 3
    assert remarks(single) == (Note("few_templates", {"templates": 1}),)
    assert remarks(few) == ()


@pytest.mark.parametrize(("templates", "missed"), [(4, 0.527), (8, 0.312), (16, 0.171)])
def test_a_pass_says_how_often_a_template_may_be_broken_unseen(
    templates: int, missed: float
) -> None:
    found = verdict("dcv.circuit", 1.0, measured(dcv=0.1, templates=templates))
    (note,) = [one for one in found.notes if one.code == "templates_unseen"]
    assert note.facts == {"templates": templates, "missed": pytest.approx(missed, abs=5e-4)}
    # A template of which a share `missed` is broken is met whole by one run in twenty.
    assert (1 - note.facts["missed"]) ** templates == pytest.approx(0.05)
    failed = verdict("dcv.circuit", 0.01, measured(dcv=0.4, templates=templates))
    assert failed.outcome is not Outcome.PASS
    assert not [one for one in failed.notes if one.code == "templates_unseen"]


def shuffled(data: Samples, order: Any) -> Samples:
    """Units in another order, and so are the arrays."""
    other = data.at(order)
    return replace(other, arrays=dict(reversed(other.arrays.items())))


@pytest.mark.parametrize("templates", [0, 16])
@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"])
def test_the_order_of_pairs_and_heads_changes_nothing(key: str, templates: int) -> None:
    data = measured(dcv=0.1, heads={HEADS[0]: 0.3, HEADS[2]: 0.2}, templates=templates)
    order = np.random.default_rng(1).permutation(64)
    first = verdict(key, 0.25, data)
    again = verdict(key, 0.25, shuffled(data, order), spec=spec(HEADS[::-1]))
    assert first == again
    assert first == verdict(key, 0.25, data)


@pytest.mark.parametrize("key", KEYS)
def test_raising_a_limit_never_turns_a_pass_into_anything_else(key: str) -> None:
    order = {Outcome.FAIL: 0, Outcome.ABSTAIN: 1, Outcome.PASS: 2}
    data = measured(dcv=0.1, heads={HEADS[0]: 0.3, HEADS[2]: 0.1}, weak=HEADS[1:2])
    nothing = {head: np.zeros(64) for head in HEADS}
    data = changed(
        data,
        tuned_correct=np.arange(64) % 8 != 0,
        **{
            f"{other}_{name}": values
            for other in ("reference", "recorded")
            for name, values in (
                ("readout", read(data, "base_readout")),
                ("correct", read(data, "base_correct")),
                ("circuit_damage", np.zeros(64)),
                ("all_damage", np.zeros(64)),
                ("head_damage", nothing),
            )
        },
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
    json.dumps(verdict_to_dict(found), allow_nan=False)


def test_a_limit_on_every_head_says_which_one_decided() -> None:
    limit = Limit("dcv.head", 0.25)
    failed = judge(spec(), limit, measured(heads={Head(3, 0): 0.9}))
    assert (failed.outcome, failed.subject) == (Outcome.FAIL, "L3H0")
    passed = judge(spec(), limit, measured(heads={Head(0, 4): 0.1}))
    assert (passed.outcome, passed.subject) == (Outcome.PASS, "L0H4")
    assert judge(spec(), Limit("dcv.circuit", 0.25), measured()).subject == ""


def test_a_head_whose_damage_is_its_own_is_named_before_those_that_inherit_more() -> None:
    limit = Limit("dcv.head", 0.25)
    data = measured(heads={HEADS[0]: 0.5, HEADS[1]: 0.8, HEADS[2]: 0.3})
    nothing = {head: np.zeros(64) for head in HEADS}
    whole = read(data, "head_damage", HEADS[0])
    own = changed(data, head_own_damage=nothing | {HEADS[0]: whole})
    first, *others = judge(spec(), limit, own).subjects
    assert [one.subject for one in (first, *others)] == [str(head) for head in HEADS]
    assert first.own is not None
    assert first.value is not None
    assert first.own.value == pytest.approx(first.value.value)
    slight = changed(data, head_own_damage=nothing | {HEADS[0]: 0.05 * whole})
    for other in (data, slight):
        worst = judge(spec(), limit, other).subjects
        assert [one.subject for one in worst] == [str(HEADS[1]), str(HEADS[0]), str(HEADS[2])]


def test_a_fail_names_the_head_that_does_the_damage_among_those_that_fail() -> None:
    data = measured(heads={HEADS[0]: 0.5, HEADS[1]: 0.8, HEADS[2]: 0.1})
    nothing = {head: np.zeros(64) for head in HEADS}
    whole = {head: read(data, "head_damage", head) for head in HEADS}
    for own, named in (
        (nothing, HEADS[1]),
        (nothing | {HEADS[0]: whole[HEADS[0]]}, HEADS[0]),
        (nothing | {HEADS[2]: whole[HEADS[2]]}, HEADS[1]),  # within its limit
    ):
        found = verdict("dcv.head", 0.25, changed(data, head_own_damage=own))
        bounds = {one.subject: one.value for one in found.subjects}
        assert (found.outcome, found.subject) == (Outcome.FAIL, str(named))
        assert found.estimate == bounds[str(named)]
        assert {found.subject, *found.facts["others"]} == {str(HEADS[0]), str(HEADS[1])}


def test_without_own_damage_a_fail_names_the_head_that_fails_most_surely() -> None:
    data = measured(heads=dict.fromkeys(HEADS, 0.0))
    noise = np.random.default_rng(3).standard_normal(64)
    noise -= noise.mean()
    importance = read(data, "head_importance", HEADS[1])
    wide = (0.9 + 2.0 * noise / noise.std()) * np.abs(importance.mean())
    sure = 0.7 * read(data, "head_importance", HEADS[0])
    damage = {HEADS[0]: sure, HEADS[1]: wide, HEADS[2]: np.zeros(64)}
    found = verdict("dcv.head", 0.25, changed(data, head_damage=damage))
    assert (found.outcome, found.subject) == (Outcome.FAIL, str(HEADS[0]))
    first = found.subjects[0]  # listed by value
    assert first.value is not None
    assert found.estimate is not None
    assert first.subject == str(HEADS[1])
    assert first.value.value > found.estimate.value


def test_loss_outside_the_circuit_fails_all_heads_and_not_the_circuit() -> None:
    data = measured(dcv=0.02)
    lost = changed(data, all_damage=0.4 * read(data, "all_importance"))
    limits = {key: Limit(key, 0.10) for key in ("dcv.circuit", "dcv.all")}
    assert judge(spec(), limits["dcv.circuit"], lost).outcome is Outcome.PASS
    whole = judge(spec(), limits["dcv.all"], lost)
    assert whole.outcome is Outcome.FAIL
    assert whole.estimate is not None
    assert whole.estimate.value == pytest.approx(0.4)
    noise = np.random.default_rng(1).standard_normal(data.count)
    worthless = changed(data, all_importance=noise - noise.mean())
    assert judge(spec(), limits["dcv.all"], worthless).code is Code.NO_SCALE


def test_a_verdict_says_from_which_value_on_it_would_fail() -> None:

    def damaged(share: float, seed: int) -> Samples:
        """Damage that spreads over pairs as real damage does, by its own size."""
        data = measured(seed=seed)
        importance = read(data, "circuit_importance")
        spread = power.OVER_PAIRS * np.random.default_rng(seed).standard_normal(64)
        return changed(data, circuit_damage=share * importance * (1 + spread))

    found = verdict("dcv.circuit", 0.10, damaged(0.05, 1000))
    assert found.detectable is not None
    outcomes = [
        verdict("dcv.circuit", 0.10, damaged(found.detectable, seed)).outcome
        for seed in range(1, 101)
    ]
    # Nominal 80 of 100 where the spread grows with the damage (test_power.py); here it does not.
    assert outcomes.count(Outcome.FAIL) >= 80
    assert verdict("dcv.circuit", 0.10, measured()).detectable is None  # no spread to go by


def test_more_limits_need_more_damage_to_be_seen() -> None:
    data = measured(dcv=0.05, heads={HEADS[0]: 0.1}, noise=0.1)
    data = changed(data, tuned_correct=np.arange(64) % 16 != 0)
    for key in ("dcv.circuit", "dcv.head", "accuracy.drop", "readout.drop"):
        one, many = (verdict(key, 0.2, data, family=family) for family in (1, 20))
        assert one.detectable is not None
        assert many.detectable is not None
        assert 0.2 < one.detectable < many.detectable
        assert (one.family, many.family) == (1, 20)
        assert one.estimate == many.estimate


@pytest.mark.parametrize("templates", [9, 10, 12, 16])
def test_no_damage_has_to_be_larger_than_sparse_damage_would_have_to_be(templates: int) -> None:
    """A copy that lost next to nothing says nothing of how damage spreads; the spread that is then
    guessed grows nearly as fast as the damage where few templates and many limits ask for much."""
    data = measured(dcv=0.005, noise=0.02, templates=templates)
    lost = read(data, "circuit_damage")
    data = changed(data, tuned_readout=read(data, "base_readout") - lost)
    for key, most in (("dcv.circuit", 1.0), ("readout.drop", 2.0)):
        found = verdict(key, 0.10, data, family=20)
        assert found.outcome is Outcome.PASS
        assert found.detectable is not None
        assert 0.10 < found.detectable <= min(found.facts["detectable_sparse"], most)


def test_a_drop_that_is_never_seen_is_not_named() -> None:
    """Sixteen pairs of which two are won: no drop that is possible fails one of fifteen limits with
    80 %, and a normal error would say 2.3."""
    base, tuned = np.ones(16, dtype=bool), np.ones(16, dtype=bool)
    base[:2] = False
    data = changed(measured(16), base_correct=base, tuned_correct=tuned)
    found = verdict("accuracy.drop", 0.10, data, family=15)
    assert found.facts["won"] == 2
    assert found.detectable is None


def test_uneven_templates_count_as_fewer() -> None:
    """One that holds half of the pairs leaves three and a half of eight."""
    even, uneven = measured(64, templates=8), measured(64, templates=8)
    names = ["t0"] * 32 + [f"t{1 + place % 7}" for place in range(32)]
    units = [replace(unit, template=name) for unit, name in zip(uneven.units, names, strict=True)]
    uneven = replace(uneven, units=tuple(units))
    cases = [Case.of(spec(), data, seed=0, family=1) for data in (even, uneven)]
    assert cases[0].drawn == pytest.approx(8)
    assert cases[1].drawn == pytest.approx(64**2 / (32**2 + 4 * 5**2 + 3 * 4**2))


def test_a_fail_among_few_limits_is_undecided_among_many_and_says_so() -> None:
    data = measured(32, dcv=0.14, noise=0.25)
    assert verdict("dcv.circuit", 0.10, data).outcome is Outcome.FAIL
    found = verdict("dcv.circuit", 0.10, data, family=200)
    assert (found.outcome, found.family) == (Outcome.ABSTAIN, 200)
    assert found.estimate is not None
    assert found.facts["corrected_low"] < 0.10 < found.estimate.low
    with pytest.raises(SpecificationError, match="family of 0"):
        verdict("dcv.circuit", 0.10, data, family=0)


def saturated(probability: float, **more: Any) -> Samples:
    """A capability whose readout is a log-probability near its ceiling."""
    readout = np.full(64, np.log(probability))
    return changed(measured(**more), base_readout=readout, tuned_readout=readout - 1e-6)


@pytest.mark.parametrize("key", ["dcv.circuit", "dcv.head", "dcv.all", "readout.drop"])
def test_a_saturated_readout_passes_nothing(key: str) -> None:
    logprob = spec(readout="logprob")
    found = verdict(key, 0.5, saturated(0.95), spec=logprob)
    assert (found.outcome, found.code) == (Outcome.ABSTAIN, Code.SATURATED)
    assert found.facts["probability"] == pytest.approx(0.95)
    assert (found.facts["instead"], found.detectable) == ("within", None)
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
    few, none = Note("other_heads", {"why": "1 of 2"}), Note("other_heads", {"why": "no more"})
    other = Control("other", ("L1H1",), few)
    damage = Key("damage", other.subject, "tuned")
    with_them = replace(
        data.with_arrays({damage: 0.7 * read(data, "circuit_importance")}),
        controls=(other, Control("random", (), none)),
    )
    found = verdict("dcv.circuit", 0.1, with_them)
    first, second = found.controls
    assert (first.name, first.members, first.note) == ("other", ("L1H1",), few)
    assert first.dcv is not None
    assert first.dcv.interval == (pytest.approx(0.7), pytest.approx(0.7))
    assert (second.dcv, second.note) == (None, none)
    assert replace(found, controls=()) == verdict("dcv.circuit", 0.1, data)
    assert verdict("dcv.head", 0.1, with_them).controls == ()
    again = shuffled(with_them, np.random.default_rng(1).permutation(64))
    assert verdict("dcv.circuit", 0.1, again) == found


def test_a_control_beside_a_circuit_without_importance_says_that_nothing_compares() -> None:
    data = measured(dcv=0.3)
    flat = read(data, "circuit_importance") - read(data, "circuit_importance").mean()
    damage = {Key("damage", "control other", "tuned"): read(data, "circuit_damage")}
    data = changed(data, circuit_importance=flat).with_arrays(damage)
    found = verdict("dcv.circuit", 0.1, replace(data, controls=(Control("other", ("L1H1",)),)))
    assert found.controls == (
        ControlEvidence("other", ("L1H1",), None, Note("nothing_to_compare")),
    )


def proportions(data: Samples, subject: str, role: str) -> Series:
    """Whether more than 0 now, where all were before."""
    now = (data.need("toy", subject, role) > 0).astype(np.float64)
    return Series(now, np.ones_like(now))


@pytest.mark.parametrize(
    ("estimator", "series"), [(Estimator.MEAN, None), (Estimator.PROPORTION, proportions)]
)
def test_parts_share_the_false_alarms_of_their_limit(estimator: Estimator, series: Any) -> None:
    names = [f"layer {at}" for at in range(20)]
    measure = Measure("toy", "", NATS, Sampled.PROMPTS, Subjects.LAYERS, estimator, series=series)
    rng = np.random.default_rng(0)
    data = measured().with_arrays(
        {Key("toy", name, "tuned"): 1 + rng.standard_normal(64) for name in names}
    )
    case = Case.of(spec(), data, seed=0, family=1)
    (alone,), (among, *_) = case.bounds(measure, names[:1]), case.bounds(measure, names)
    assert among.estimate.interval == pytest.approx(alone.estimate.interval, rel=1e-9)
    assert alone.corrected_low == alone.estimate.low
    width = alone.estimate.value - alone.estimate.low
    assert among.estimate.value - among.corrected_low > 1.3 * width


@pytest.mark.parametrize(("subjects", "counts"), [(Subjects.WHOLE, True), (Subjects.TASKS, False)])
def test_templates_of_pairs_are_none_of_a_tasks_documents(subjects: Subjects, counts: bool) -> None:
    """Even where there are as many of one as of the other."""
    lost = np.tile([1.0, 0.0, 0.0, 0.0] * 4, 4)  # whole templates of 4 pairs

    def scores(data: Samples, subject: str, role: str) -> Series:
        return Series(1 - lost, np.ones(64))

    measure = Measure("toy", "", NATS, Sampled.PAIRS, subjects, Estimator.SCORES, series=scores)
    wide, narrow = (
        Case.of(spec(), measured(templates=templates), seed=0, family=1).bounds(measure, [""])
        for templates in (16, 0)
    )
    (one,), (other,) = wide, narrow
    assert (one.estimate.high > 1.05 * other.estimate.high) is counts
    assert counts or one == other


def test_over_a_reference_no_head_has_damage_of_its_own() -> None:
    data = measured(heads={HEADS[0]: 0.5})
    damage = {head: read(data, "head_damage", head) for head in HEADS}
    nothing = {head: np.zeros(64) for head in HEADS}
    data = changed(data, head_own_damage=damage, reference_head_damage=nothing)
    for key, has_own in (("dcv.head", True), ("dcv.head.over_reference", False)):
        found = verdict(key, 0.25, data).subjects
        assert [one.own is not None for one in found] == [has_own] * 3


@pytest.mark.parametrize(("share", "leads"), [(0.4, False), (0.6, True)])
def test_a_head_leads_where_half_of_its_damage_is_its_own(share: float, leads: bool) -> None:
    data = measured(heads={HEADS[0]: 0.5, HEADS[1]: 0.8})
    own = {HEADS[0]: share * read(data, "head_damage", HEADS[0]), HEADS[1]: np.zeros(64)}
    first = verdict("dcv.head", 0.25, changed(data, head_own_damage=own)).subjects[0]
    assert first.subject == str(HEADS[0] if leads else HEADS[1])


def test_what_all_heads_need_is_what_the_noisiest_needs() -> None:
    data = measured()
    noise = np.random.default_rng(5).standard_normal((2, 64))
    noise = (noise - noise.mean(axis=1, keepdims=True)) / noise.std(axis=1, keepdims=True)
    importance = {head: np.ones(64) for head in HEADS}
    damage = {HEADS[0]: 0.2 + 0.5 * noise[0], HEADS[1]: 0.2 + 1.5 * noise[1]}
    data = changed(data, head_importance=importance, head_damage=damage | {HEADS[2]: np.zeros(64)})
    quiet, noisy = (verdict("dcv.head", 0.25, data, spec=spec((head,))) for head in HEADS[:2])
    both = verdict("dcv.head", 0.25, data, spec=spec(HEADS[:2]))
    assert {one.outcome for one in (quiet, noisy, both)} == {Outcome.ABSTAIN}
    assert both.facts["wanted"] >= noisy.facts["wanted"] > 4 * quiet.facts["wanted"]
    assert None not in (quiet.detectable, noisy.detectable, both.detectable)
    assert both.detectable >= noisy.detectable > 1.5 * quiet.detectable  # type: ignore[operator]


def test_beside_a_limit_over_a_reference_members_stand_by_their_difference() -> None:
    data = measured(dcv=0.3, heads={HEADS[0]: 0.5})
    damage = {head: read(data, "head_damage", head) for head in HEADS}
    circuit = read(data, "circuit_damage")
    data = changed(data, reference_head_damage=damage, reference_circuit_damage=circuit)
    found = verdict("dcv.circuit.over_reference", 0.1, data).subjects
    assert [one.value.value for one in found if one.value is not None] == [0.0, 0.0, 0.0]
    assert {note for one in found for note in one.notes} == {Note("over", {"role": "reference"})}


def test_a_circuit_that_carries_little_of_a_log_probability_is_noted() -> None:
    data = measured(dcv=0.01)
    readout, importance = read(data, "base_readout"), read(data, "circuit_importance")
    data = changed(data, base_readout=-readout, circuit_importance=0.05 * importance)
    (note,) = remarks(verdict("dcv.circuit", 1.0, data, spec=spec(readout="logprob")))
    assert note.code == "small_circuit"
    assert note.facts["share"] == pytest.approx(0.05 * importance.mean() / readout.mean())


def test_the_draws_depend_on_the_runs_seed_and_on_the_name_of_the_file() -> None:
    data = measured(dcv=0.1, noise=0.4)
    given: list[dict[str, Any]] = [{}, {"seed": 1}, {"spec": replace(spec(), name="d")}]
    found = [verdict("dcv.circuit", 0.1, data, **more).estimate for more in given]
    assert len({one.interval for one in found if one is not None}) == 3


def test_a_pass_names_the_head_whose_upper_bound_is_nearest() -> None:
    noise = np.random.default_rng(5).standard_normal(64)
    noise = (noise - noise.mean()) / noise.std()
    importance = {head: np.ones(64) for head in HEADS}
    damage = {HEADS[0]: np.full(64, 0.05), HEADS[1]: 0.04 + 0.3 * noise, HEADS[2]: np.zeros(64)}
    data = changed(measured(), head_importance=importance, head_damage=damage)
    found = verdict("dcv.head", 0.5, data)
    assert (found.outcome, found.subject) == (Outcome.PASS, str(HEADS[1]))
