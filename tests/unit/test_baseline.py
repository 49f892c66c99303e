"""A recorded checkpoint and a later one are compared pair by pair, and only where they compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_samples import changed, read, samples

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import SpecificationError
from forgetguard.gate import records
from forgetguard.gate.baseline import (
    Baseline,
    Entry,
    attach,
    entry_from_dict,
    entry_to_dict,
    identity,
)
from forgetguard.gate.declaration import GateSpec, Limit, TaskPairs
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures.samples import BASELINE, Control, Key, Note, Samples
from forgetguard.report import baseline_file

HEADS = (Head(2, 1), Head(0, 4))
BASE = {"weights": "abcdef", "tokenizer": "t", "config": "c"}
PATH = Path("accepted.json")
SPEC = GateSpec("c", "ioi", TaskPairs("ioi", 64), "logit_diff", HEADS, ())


def measured(dcv: float = 0.02, *, pairs: int = 64, seed: int = 0, wrong: int = 0) -> Samples:
    """One base throughout; `seed` changes the damage only, `wrong` pairs are lost by tuned."""
    rng = np.random.default_rng(7)
    importance = 3 + 0.5 * rng.standard_normal(pairs)
    readout = 5 + 0.5 * rng.standard_normal(pairs)
    noise = np.random.default_rng(seed)
    damage = dcv * importance + 0.05 * noise.standard_normal(pairs)
    tuned_correct = np.ones(pairs, dtype=bool)
    tuned_correct[:wrong] = False
    return samples(
        tuple(PromptPair(f"x{i:03}", f"x'{i}", " y", " n") for i in range(pairs)),
        base_readout=readout,
        tuned_readout=readout - damage,
        base_correct=np.ones(pairs, dtype=bool),
        tuned_correct=tuned_correct,
        circuit_importance=importance,
        circuit_damage=damage,
        all_importance=2 * importance,
        all_damage=2 * damage,
        head_importance={HEADS[0]: importance / 2, HEADS[1]: importance / 3},
        head_damage={HEADS[0]: damage / 2, HEADS[1]: 2 * damage / 3},
    )


def entry(data: Samples, spec: GateSpec = SPEC, **recorded: Any) -> Entry:
    return Entry(identity(spec, records.digest_units(data.units), BASE), recorded, {}, data)


def baseline(data: Samples, **more: Any) -> Baseline:
    return Baseline(PATH, {"c": entry(data, **more.pop("recorded", {}))}, **more)


def shuffled(data: Samples, seed: int = 1) -> Samples:
    return data.at(np.random.default_rng(seed).permutation(data.count))


def verdict(key: str, maximum: float, data: Samples, spec: GateSpec = SPEC) -> Verdict:
    return judge(spec, Limit(key, maximum, 7), data)


# --- the difference --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["dcv.circuit.over_baseline", "dcv.head.over_baseline", "accuracy.drop.over_baseline"],
)
def test_the_recorded_checkpoint_itself_reads_exactly_zero_over_the_baseline(key: str) -> None:
    data = measured(0.3, wrong=9)
    found = verdict(key, 0.0, attach(SPEC, data, baseline(shuffled(data)), BASE))
    assert found.outcome is Outcome.PASS
    assert found.estimate is not None
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == (0.0, 0.0, 0.0)
    if key.startswith("accuracy"):
        assert (found.code, found.facts["role"]) == (Code.IDENTICAL, BASELINE)


def test_the_difference_is_paired_whatever_order_either_was_measured_in() -> None:
    now, then = measured(0.20, seed=1), measured(0.12, seed=2)
    data = attach(SPEC, shuffled(now, 3), baseline(shuffled(then, 4)), BASE)
    found = verdict("dcv.circuit.over_baseline", 0.15, data).estimate
    assert found is not None
    gap = read(now, "circuit_damage") - read(then, "circuit_damage")
    importance = read(now, "circuit_importance")
    assert found.value == pytest.approx(gap.mean() / importance.mean(), abs=1e-12)
    # Against a plain percentile bootstrap of whole pairs, written out.
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 64, size=(4000, 64))
    ratios = gap[drawn].mean(axis=1) / importance[drawn].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(np.quantile(ratios, [0.05, 0.95]), abs=0.001)


def test_heads_are_compared_with_their_own_record() -> None:
    now, then = measured(0.20, seed=1), measured(0.12, seed=2)
    data = attach(SPEC, now, baseline(shuffled(then)), BASE)
    found = verdict("dcv.head.over_baseline", 0.5, data)
    by_head = {one.subject: one.value for one in found.subjects}
    for head in HEADS:
        gap = read(now, "head_damage", head) - read(then, "head_damage", head)
        value = by_head[str(head)]
        assert value is not None
        importance = read(now, "head_importance", head)
        assert value.value == pytest.approx(gap.mean() / importance.mean())
    assert all(one.notes == (Note("over", {"role": BASELINE}),) for one in found.subjects)


def test_accuracy_over_the_baseline_is_what_was_lost_since() -> None:
    data = attach(SPEC, measured(wrong=9), baseline(measured(wrong=4)), BASE)
    since = verdict("accuracy.drop.over_baseline", 0.5, data)
    whole = verdict("accuracy.drop", 0.5, data)
    assert since.estimate is not None
    assert whole.estimate is not None
    assert since.estimate.value == pytest.approx(5 / 64)
    assert whole.estimate.value == pytest.approx(9 / 64)
    assert (since.facts["before"], since.facts["now"]) == (60 / 64, 55 / 64)


def test_absolute_limits_are_judged_as_if_there_were_no_baseline() -> None:
    now = measured(0.2)
    beside = attach(SPEC, now, baseline(measured(0.19, seed=2)), BASE)
    for key in ("dcv.circuit", "dcv.head", "dcv.all", "accuracy.drop", "readout.drop"):
        alone, with_it = verdict(key, 0.1, now), verdict(key, 0.1, beside)
        assert replace(with_it, notes=()) == replace(alone, notes=())


def test_more_damage_since_the_baseline_fails_and_no_more_passes() -> None:
    then = baseline(measured(0.12, seed=2))
    worse = attach(SPEC, measured(0.30, seed=1), then, BASE)
    equal = attach(SPEC, measured(0.12, seed=1), then, BASE)
    better = attach(SPEC, measured(0.02, seed=1), then, BASE)
    outcomes = [
        verdict("dcv.circuit.over_baseline", 0.05, one).outcome for one in (worse, equal, better)
    ]
    assert outcomes == [Outcome.FAIL, Outcome.PASS, Outcome.PASS]


def test_a_limit_over_no_baseline_is_an_error_with_its_line() -> None:
    spec = replace(SPEC, path=Path("c.circuit.yaml"))
    with pytest.raises(SpecificationError, match=r"c\.circuit\.yaml:7: .*needs a baseline"):
        verdict("dcv.circuit.over_baseline", 0.1, measured(), spec)


# --- notes -----------------------------------------------------------------------------------


def notes_of(key: str, data: Samples, spec: GateSpec = SPEC) -> list[Note]:
    return [note for note in verdict(key, 0.5, data, spec).notes if note.code == "beside_baseline"]


def test_a_verdict_says_then_now_and_the_difference_with_its_interval() -> None:
    data = attach(SPEC, measured(0.20, seed=1), baseline(measured(0.12, seed=2)), BASE)
    (note,) = notes_of("dcv.circuit", data)
    over = verdict("dcv.circuit.over_baseline", 0.5, data).estimate
    now = verdict("dcv.circuit", 0.5, data).estimate
    assert over is not None
    assert now is not None
    assert (note.facts["measure"], note.facts["subject"]) == ("dcv.circuit", "")
    assert note.facts["now"] == pytest.approx(now.value)
    assert note.facts["now"] - note.facts["then"] == pytest.approx(over.value)
    bounds = [note.facts[name] for name in ("value", "low", "high")]
    assert bounds == [over.value, over.low, over.high]


@pytest.mark.parametrize(
    ("key", "subject", "then", "now"),
    [
        ("dcv.all", "", 0.1, 0.2),
        ("dcv.head", "L0H4", 0.1 * 2 / 3, 0.2 * 2 / 3),  # as a share of the whole circuit
        ("accuracy.drop", "", 1.0, 59 / 64),
        ("readout.drop", "", 0.06, 0.12),
    ],
)
def test_every_measure_says_so_once(key: str, subject: str, then: float, now: float) -> None:
    data = attach(SPEC, measured(0.2, seed=1, wrong=5), baseline(measured(0.1, seed=2)), BASE)
    (note,) = notes_of(key, data)
    assert (note.facts["measure"], note.facts["subject"]) == (key, subject)
    assert (note.facts["then"], note.facts["now"]) == (
        pytest.approx(then, abs=0.01),
        pytest.approx(now, abs=0.01),
    )
    assert note.facts["value"] == pytest.approx(abs(now - then), abs=0.01)  # more is worse
    assert note.facts["low"] < note.facts["value"] < note.facts["high"]


def test_the_member_beside_a_circuit_that_works_against_is_the_one_that_grew_most() -> None:
    nothing = dict.fromkeys(HEADS, np.zeros(64))
    then = changed(measured(), head_damage=nothing)
    importance = read(then, "circuit_importance")
    then = changed(then, circuit_importance=-importance)
    damage = {HEADS[0]: -0.5 * importance, HEADS[1]: 0.1 * importance}
    data = attach(SPEC, changed(then, head_damage=damage), baseline(then), BASE)
    (note,) = notes_of("dcv.head", data)
    assert (note.facts["subject"], note.facts["value"]) == (str(HEADS[0]), pytest.approx(0.5))


def test_a_pair_of_another_template_is_the_same_pair() -> None:
    now = measured()
    named = replace(now, units=tuple(replace(one, template="t") for one in now.units))
    found = attach(SPEC, named, baseline(shuffled(now)), BASE)
    assert read(found, "recorded_readout").tolist() == read(now, "tuned_readout").tolist()


def test_a_measure_with_a_limit_over_the_baseline_leaves_it_to_that_limit() -> None:
    spec = replace(SPEC, limits=(Limit("dcv.circuit.over_baseline", 0.1),))
    data = attach(spec, measured(), baseline(measured()), BASE)
    assert notes_of("dcv.circuit", data, spec) == []
    assert notes_of("dcv.circuit.over_baseline", data, spec) == []
    assert len(notes_of("accuracy.drop", data, spec)) == 1
    assert notes_of("dcv.circuit", measured()) == []


def test_other_versions_and_devices_warn_and_do_not_fail() -> None:
    data = attach(
        SPEC,
        measured(),
        baseline(
            measured(),
            recorded={
                "versions": {"torch": "1", "pytest": "1"},
                "environment": {"device": "cuda", "threads": 8},
            },
            versions={"torch": "2", "pytest": "2"},
            environment={"device": "cpu", "threads": 1},
        ),
        BASE,
    )
    differing = ["torch 1, now 2", "device cuda, now cpu"]
    assert data.notes == (Note("recorded_elsewhere", {"changed": differing}),)


def test_a_base_that_reads_differently_by_itself_warns() -> None:
    now = measured()
    moved = changed(now, base_readout=read(now, "base_readout") + 0.01)
    (note,) = attach(SPEC, moved, baseline(now), BASE).notes
    assert note.code == "base_reads_differently"
    assert note.facts["nats"] == pytest.approx(0.01)


# --- identity --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "base", "said"),
    [
        (SPEC, BASE | {"weights": "fedcba"}, "the base's weights (recorded abcdef"),
        (SPEC, BASE | {"config": "d"}, "the base's config"),
        (replace(SPEC, members=HEADS[:1]), BASE, "heads (L0H4 gone)"),
        (replace(SPEC, readout="logprob"), BASE, "readout (recorded logit_diff, now logprob)"),
        (replace(SPEC, site="z"), BASE, "site"),
        (replace(SPEC, confidence=0.9), BASE, "confidence (recorded 0.95, now 0.9)"),
        (replace(SPEC, chat_template=True), BASE, "chat_template"),
    ],
)
def test_what_differs_is_named(spec: GateSpec, base: dict[str, str], said: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        attach(spec, measured(), baseline(measured()), base)
    assert said in str(caught.value)
    assert "--forgetguard-update" in str(caught.value)


def test_the_order_of_heads_limits_and_the_file_is_no_difference(tmp_path: Path) -> None:
    spec = replace(SPEC, members=HEADS[::-1], limits=(Limit("dcv.all", 1.0),), path=tmp_path)
    assert attach(spec, measured(), baseline(measured()), BASE).has_role(BASELINE)


def test_other_prompts_are_named_with_how_many() -> None:
    now = measured()
    other = replace(now, units=(replace(now.units[0], clean="new"), *now.units[1:]))
    with pytest.raises(SpecificationError, match=r"the prompts .1 of 64 pairs were not recorded"):
        attach(SPEC, other, baseline(now), BASE)
    with pytest.raises(SpecificationError, match="64 pairs were recorded, now 32"):
        attach(SPEC, now.at(slice(32)), baseline(now), BASE)


def test_a_sequential_run_may_stop_before_it_has_drawn_all_that_were_recorded() -> None:
    spec = replace(SPEC, pairs=TaskPairs("ioi", 32, most=64))
    then = Baseline(PATH, {"c": entry(measured(0.1, seed=2), spec)})
    data = attach(spec, measured(0.2, seed=1).at(slice(32)), then, BASE)
    assert len(data.need("readout", role=BASELINE)) == 32


def test_a_circuit_that_is_not_there_is_an_error_unless_it_is_about_to_be() -> None:
    empty = Baseline(PATH, {})
    with pytest.raises(SpecificationError, match="circuit 'c' is not in the baseline"):
        attach(SPEC, measured(), empty, BASE)
    data = attach(SPEC, measured(), replace(empty, recording=True), BASE)
    assert not data.has_role(BASELINE)


# --- the file --------------------------------------------------------------------------------


@given(st.integers(0, 1000))
def test_an_entry_comes_back_with_its_numbers_and_without_an_older_baseline(seed: int) -> None:
    data = attach(SPEC, measured(seed=seed), baseline(measured(seed=seed + 1)), BASE)
    exact = {Key("rotation", "m", role): float(seed) for role in ("tuned", BASELINE)}
    plain = records.samples_to_dict(replace(data, exact=exact))
    assert BASELINE in plain["arrays"]["damage"]
    written = entry_to_dict(plain, SPEC, BASE, {"tuned": "t"}, {"dcv.circuit": "a::b"})
    again = entry_from_dict("c", written, "it")
    assert not again.samples.has_role(BASELINE)
    assert again.samples.exact == {Key("rotation", "m", "tuned"): seed}
    assert read(again.samples, "circuit_damage").tobytes() == read(data, "circuit_damage").tobytes()
    assert again.identity == identity(SPEC, records.digest_units(data.units), BASE)


def test_a_baseline_file_is_read_back_and_sealed(tmp_path: Path) -> None:
    path = tmp_path / "accepted.json"
    plain = records.samples_to_dict(measured())
    baseline_file.write(path, {"c": entry_to_dict(plain, SPEC, BASE, {}, {})})
    assert list(baseline_file.read(path).circuits) == ["c"]
    path.write_text(path.read_text().replace('"readout": "logit_diff"', '"readout": "logprob"'))
    with pytest.raises(SpecificationError, match="does not match its checksum"):
        baseline_file.read(path)
    with pytest.raises(SpecificationError, match="there is no baseline"):
        baseline_file.read(tmp_path / "gone.json")
    assert baseline_file.read(tmp_path / "gone.json", recording=True).circuits == {}


def test_a_half_entry_is_refused_with_the_circuits_name(tmp_path: Path) -> None:
    path = tmp_path / "accepted.json"
    baseline_file.write(path, {"c": {"identity": {}, "recorded": {}, "limits": {}}})
    with pytest.raises(SpecificationError, match="the entry of circuit 'c' cannot be read"):
        baseline_file.read(path)


def test_what_tuned_read_is_recorded_whole_but_for_what_nothing_is_compared_with() -> None:
    nothing = dict.fromkeys(HEADS, np.zeros(64))
    then = changed(measured(), head_own_damage=nothing)
    beside = Control("other", ("L1H1",))
    then = replace(
        then.with_arrays({Key("damage", beside.subject, "tuned"): np.ones(64)}), controls=(beside,)
    )
    data = attach(SPEC, measured(), baseline(then), BASE)
    kept = {(key.quantity, key.subject) for key in data.arrays if key.role == BASELINE}
    parts = ("circuit", "all", *map(str, HEADS))
    assert kept == {("readout", ""), ("correct", ""), *(("damage", part) for part in parts)}
