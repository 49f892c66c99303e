"""Whatever the gate decides can be said: every code, every note, before and after a file."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_samples import HEADS, changed, measured, read, spec

import forgetguard
from forgetguard.gate.declaration import Limit
from forgetguard.gate.records import verdict_from_dict, verdict_to_dict
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Code, Outcome, SubjectEvidence, Verdict, exactly
from forgetguard.measures import registry
from forgetguard.measures.samples import Note, Samples
from forgetguard.report import terminal, wording

BOUNDS = {"value": 0.1, "low": -0.05, "high": 0.25}
# Facts as the gate gives them, with the words that must not be missed.
NOTES: Mapping[str, tuple[dict[str, Any], str]] = {
    "pairs_dropped": ({"count": 3, "why": "too long"}, "3"),
    "few_exist": ({"count": 9, "asked": 64}, "9 of the 64"),
    "reply_marker": ({"marker": "<think>"}, "<think>"),
    "dropped": ({"dropped": 6, "of": 70}, "6 of 70"),
    "few_templates": ({"templates": 1}, "1 template:"),
    "templates_unseen": ({"templates": 8, "missed": 0.312}, "31.2 %"),
    "cannot_fail": ({"before": 0.55, "chance": 0.5, "most": 0.05}, "55%"),
    "unguarded": ({"guard": 1.0, "pairs": 29, "count": 16}, "29"),
    "fixed_prompts": ({"can_be_drawn": True}, "--forgetguard-prompt-seed"),
    "base_alone": ({"limits": ["gradient.conflict"]}, "gradient.conflict"),
    "drawn_prompts": ({"seed": 41}, "41"),
    "slice_carries": (
        {
            "kind": "template",
            "slice": "met-baba",
            "share": 0.62,
            "units": 8,
            "of": 64,
            "measure": "readout.drop",
            "value": 0.9,
            "chance": 0.0002,
            "slices": 31,
        },
        "'met-baba' carries 62 % of the loss on 8 of 64 pairs",
    ),
    "said_instead": (
        {"changed": 25, "before": 60, "right": 24, "distractor": 1, "tokens": [[" the", 20]]},
        "' the' on 20",
    ),
    "left_out": ({"metrics": ["wiki word_perplexity"]}, "wiki word_perplexity"),
    "scores": (
        {"subject": "arc acc", "before": 0.61, "now": 0.4, "lost": 9, "won": 2, "count": 40},
        "arc acc: 61.0% to 40.0% on 40 documents (9 lost, 2 won)",
    ),
    "drawn": ({"units": 64, "most": 256, "stage": 1, "stages": 3}, "192 pairs saved"),
    "auto": (
        {"members": ["L0H4"], "method": "m", "of": 24, "faithfulness": 0.812, "held_out": 32},
        "0.81 on 32",
    ),
    "not_looked_for": ({"why": "no base"}, "no base"),
    "found_on_gated_pairs": ({}, "gated"),
    "circuit_works_against": ({}, "RAISES"),
    "small_circuit": ({"share": 0.05}, "5 %"),
    "answers_from_prior": ({"readout": 4.0, "effect": 0.2}, "only 0.2 less"),
    "share_of_readout": ({**BOUNDS, "lost": 0.82}, "0.82"),
    "share_of_loss": ({**BOUNDS, "lost": BOUNDS}, "0.1 [-0.05, 0.25]"),
    "far_below": ({"subjects": ["L0H4"], "least": "L0H4", **BOUNDS}, "L0H4"),
    "heads_matched": ({"role": "tuned", "heads": {"L0H4": "L0H5"}}, "L0H4 is L0H5"),
    "no_effect": ({"count": 64}, "all 64 pairs"),
    "judged_alone": ({"subjects": ["L0H4"], "of": 29}, "1 of the circuit's 29"),
    "held_by_floor": ({"over": "floor", "floor": 0.1, "subjects": ["L0H4"]}, "10 %"),
    "over": ({"role": "reference"}, "reference"),
    "no_importance": ({}, "importance"),
    "works_against": ({}, "both directions"),
    "floored": ({"worth": 0.02, "floor": 0.1, **BOUNDS}, "0.1 [-0.05, 0.25]"),
    "nothing_to_compare": ({}, "nothing"),
    "other_heads": ({"why": "1 of 2"}, "1 of 2"),
    "checkpoint": ({"why": "vocabulary"}, "vocabulary"),
    "beside_baseline": (
        {"measure": "dcv.head", "subject": "L0H4", "then": 0.1, "now": 0.2, **BOUNDS},
        "0.1 then, 0.2 now",
    ),
    "recorded_elsewhere": ({"changed": ["torch 1, now 2"]}, "torch 1, now 2"),
    "base_reads_differently": ({"nats": 0.01}, "0.01 nats"),
}


def emitted() -> set[str]:
    """The codes of all notes that the package makes."""
    root = Path(forgetguard.__file__).parent
    calls = (
        node
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Note"
    )
    return {ast.literal_eval(call.args[0]) for call in calls}


def test_every_note_that_is_made_has_words_and_no_words_are_left_over() -> None:
    assert emitted() == set(wording._NOTES) == set(NOTES)


@pytest.mark.parametrize("code", NOTES)
def test_a_note_says_its_numbers(code: str) -> None:
    facts, words = NOTES[code]
    for given in (facts, json.loads(json.dumps(facts))):
        said = wording.note(Note(code, given))
        assert words in said
        assert "\n" not in said


@pytest.mark.parametrize("over", ["floor", "between"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_heads_that_are_held_by_something_else_are_named(over: str, floor: float) -> None:
    facts = {"over": over, "floor": floor, "subjects": ["L0H4", "L2H1"]}
    assert wording.note(Note("held_by_floor", facts)).count("L0H4, L2H1") == 1


@pytest.mark.parametrize(
    ("found_on", "said"),
    [
        (
            {"kind": "task", "task": "ioi", "seed": 1_000_003, "pairs": 64},
            "64 other pairs (task ioi",
        ),
        ({"kind": "file", "pairs": 48}, "48 other pairs (the file)"),
    ],
)
def test_a_circuit_that_was_looked_for_says_on_which_pairs(
    found_on: dict[str, Any], said: str
) -> None:
    facts = NOTES["auto"][0]
    assert said in wording.note(Note("auto", facts | {"found_on": found_on}))
    judged = wording.note(Note("auto", facts | {"found_on": {"kind": "judged", "pairs": 24}}))
    assert judged == wording.note(Note("auto", facts))


@pytest.mark.parametrize("code", ["unguarded", "drawn", "dropped", "few_templates"])
@pytest.mark.parametrize(
    ("limit", "units"),
    [("sharpness.max", "prompts"), ("dcv.circuit", "pairs"), ("drift.weights", "pairs")],
)
def test_a_note_counts_in_the_units_of_its_limit(code: str, limit: str, units: str) -> None:
    said = wording.note(Note(code, NOTES[code][0]), limit)
    assert [one for one in ("pairs", "prompts") if one in said] == [units]


def test_a_note_of_another_version_shows_what_it_holds() -> None:
    assert wording.note(Note("unheard_of", {"count": 3})) == "unheard_of: count 3"


def cases() -> dict[str, tuple[Samples, dict[str, Any]]]:
    """Data by what it is an example of, with what `judge` and the gate file are given."""
    fine = measured(dcv=0.05, heads={HEADS[0]: 0.1})
    flat = read(fine, "circuit_importance") - read(fine, "circuit_importance").mean()
    readout = read(fine, "base_readout")
    sure = np.full(64, np.log(0.95))
    noise = np.random.default_rng(3).standard_normal(64)
    unknown = 0.6 + 8 * (noise - noise.mean())
    others = {head: read(fine, "head_importance", head) for head in HEADS[:2]}
    broken = measured(dcv=0.6, heads={HEADS[0]: 0.8, HEADS[1]: 0.7})
    return {
        "equal": (measured(), {}),
        "fine": (fine, {}),
        "family": (fine, {"family": 20}),
        "broken": (broken, {"family": 2}),
        "undecided": (measured(16, dcv=0.1, heads={HEADS[0]: 0.1}, noise=2.0), {}),
        "few": (measured(7), {}),
        "guarded": (measured(16, dcv=0.02), {"guard": 1.0}),
        "wrong": (changed(fine, base_correct=np.zeros(64)), {}),
        "unsure": (changed(fine, base_readout=readout - readout.mean()), {}),
        "unmoved": (changed(fine, base_counterfactual=readout), {}),
        "no scale": (changed(fine, circuit_importance=flat, all_importance=flat), {}),
        "weak": (measured(weak=HEADS), {"floor": 0.0}),
        "floored": (measured(weak=HEADS[:1], heads={HEADS[0]: 0.5}, noise=0.05), {}),
        "between": (changed(fine, head_importance={**others, HEADS[2]: unknown}), {}),
        "against": (changed(fine, circuit_importance=-read(fine, "circuit_importance")), {}),
        "saturated": (
            changed(fine, base_readout=sure, tuned_readout=sure - 0.01),
            {"readout": "logprob"},
        ),
        "no circuit": (fine, {"heads": (), "auto": True}),
        "stages": (replace(fine, stages=(64, 128)), {}),
        "renamed": (renamed(broken), {}),
    }


def renamed(data: Samples) -> Samples:
    """The same damage by name, in a model that reads what the base does on every prompt."""
    clean, other = read(data, "base_readout"), read(data, "base_counterfactual")
    return changed(data, tuned_readout=clean + 1e-5, tuned_counterfactual=other)


MEASURES = ("dcv.circuit", "dcv.head", "accuracy.drop")
MORE = ("dcv.all", "readout.drop")
COMPARED = ("equal", "fine", "broken", "renamed")  # by all measures, and with other models too


def with_others(data: Samples) -> Samples:
    """With a reference and a baseline that are as the base."""
    arrays: dict[str, Any] = {}
    for other in ("reference", "recorded"):
        arrays[f"{other}_readout"] = read(data, "base_readout")
        arrays[f"{other}_correct"] = read(data, "base_correct")
        for part in ("circuit", "all"):
            arrays[f"{other}_{part}_damage"] = np.zeros(data.count)
        arrays[f"{other}_head_damage"] = dict.fromkeys(HEADS, np.zeros(data.count))
    return changed(data, **arrays)


def verdicts() -> dict[tuple[str, str], Verdict]:
    """One by example and limit."""
    found = {}
    for name, (data, given) in cases().items():
        for measure in (*MEASURES, *(MORE if name in COMPARED else ())):
            for over in ("", *(registry.MODIFIERS if name in COMPARED else ())):
                key = f"{measure}.over_{over}" if over else measure
                floor, guard = given.get("floor", 0.1), given.get("guard", 0.0)
                limit = Limit(key, 0.12, 7, floor, guard)
                declared = spec(
                    given.get("heads", HEADS),
                    given.get("readout", "logit_diff"),
                    auto=given.get("auto", False),
                )
                if not declared.members and not over and measure == "dcv.head":
                    continue
                family = given.get("family", 1)
                found[name, key] = judge(declared, limit, with_others(data), family=family)
    # Which these samples have not: tests/unit/test_measure_{lm_eval,gradient_conflict}.py reach it.
    facts = {"subject": "arc acc", "before": 0.52, "chance": 0.5}
    few = {"count": 32, "share": 0.87, "effective": 1.29, "least": 16}
    for of, key, code, more in (
        (Code.NO_SCALE, "lm_eval.drop", Code.NOTHING_TO_LOSE, facts),
        (Code.UNDECIDED, "gradient.conflict", Code.FEW_CARRY, few),
    ):
        abstaining = next(one for one in found.values() if one.code is of)
        found["elsewhere", key] = replace(abstaining, limit=key, code=code, facts=more, notes=())
    return found


@pytest.fixture(scope="module")
def judged() -> dict[tuple[str, str], Verdict]:
    return verdicts()


def test_every_code_is_reached_and_has_words(judged: Mapping[tuple[str, str], Verdict]) -> None:
    assert {one.code for one in judged.values()} == set(Code) == set(wording._REASONS)
    held = {
        note.facts["over"]
        for one in judged.values()
        for note in one.notes
        if note.code == "held_by_floor"
    }
    assert held == {"floor", "between"}


def test_a_verdict_is_told_in_the_same_words_before_and_after_a_file(
    judged: Mapping[tuple[str, str], Verdict],
) -> None:
    for name, one in judged.items():
        again = verdict_from_dict(json.loads(json.dumps(verdict_to_dict(one), allow_nan=False)))
        lines = terminal.failure_lines(one)
        assert lines == terminal.failure_lines(again), name
        for line in (wording.reason(one), *lines):
            assert "\n" not in line, name
            assert "None" not in line, (name, line)
            assert "Note(" not in line, (name, line)


def test_a_reason_names_what_decided_the_limit_and_how_it_was_corrected(
    judged: Mapping[tuple[str, str], Verdict],
) -> None:
    for (name, key), one in judged.items():
        said = wording.reason(one)
        if one.code in (Code.WITHIN, Code.BEYOND, Code.UNDECIDED):
            assert one.estimate is not None
            assert wording.interval(one.estimate) in said, (name, key)
            assert f"the limit {one.bound:g}" in said, (name, key)
            assert one.subject in said, (name, key)
            assert f" on {one.estimate.n} pairs" in said or f" at {one.estimate.n} pairs" in said
        if one.code is Code.BEYOND:
            corrected = wording.number(one.facts["corrected_low"])
            several = one.family > 1 or bool(one.subject)
            assert ("corrected for" in said and corrected in said) is several, (name, key)


E_CIRCUIT = Verdict(
    circuit="ioi",
    capability="ioi",
    limit="dcv.circuit",
    bound=0.1,
    outcome=Outcome.FAIL,
    estimate=replace(exactly(0.3141), low=0.2449, high=0.3862, coverage=0.9, n=64),
    code=Code.BEYOND,
    facts={"corrected_low": 0.2217},
    family=15,
)


@pytest.mark.parametrize(
    ("low", "share", "others", "told"),
    [
        (0.3, 0.6, (), True),
        (-0.1, 0.6, (), False),
        (0.3, 0.4, (), False),
        (0.3, 1, ["L1H2"], False),
    ],
)
def test_a_head_that_does_the_damage_and_does_not_fail_is_named_beside_one_that_inherits_it(
    low: float, share: float, others: Sequence[str], told: bool
) -> None:
    assert E_CIRCUIT.estimate is not None
    value = E_CIRCUIT.estimate
    own = replace(value, value=share * value.value, low=low)
    heads = (SubjectEvidence("L1H2", value, own=own), SubjectEvidence("L3H4", value))
    facts = {"corrected_low": 0.2, "of": 2, "others": others}
    one = replace(E_CIRCUIT, limit="dcv.head", subject="L3H4", subjects=heads, facts=facts)
    said = wording.reason(one)
    assert ("; so is L1H2" in said) is bool(others)
    assert ("look at L1H2 first" in said) is told
    itself = replace(one, subject="L1H2", facts=facts | {"others": ["L3H4", "L5H6"]})
    assert wording.reason(itself).endswith("; so are L3H4, L5H6")


def test_the_sentences_that_people_quote() -> None:
    assert wording.reason(E_CIRCUIT) == (
        "DCV of the circuit 0.314 [0.245, 0.386] on 64 pairs is beyond the limit 0.1 "
        "(lower bound corrected for 15 limits 0.222)"
    )
    facts = {"corrected_low": 0.2, "over": "floor", "floor": 0.1, "of": 3, "others": ["L0H4"]}
    head = replace(E_CIRCUIT, limit="dcv.head", subject="L2H1", facts=facts, family=1)
    assert wording.reason(head) == (
        "damage of L2H1, as a share of 10 % of the circuit's importance, 0.314 [0.245, 0.386] on "
        "64 pairs is beyond the limit 0.1 (lower bound corrected for 3 heads 0.2); so is L0H4"
    )
    facts = {"before": 1.0, "now": 0.75, "corrected_low": 0.01, "wanted": 149}
    drop = replace(E_CIRCUIT, limit="accuracy.drop", code=Code.UNDECIDED, facts=facts, family=1)
    assert wording.reason(drop) == (
        "undecided at 64 pairs: accuracy 100.0% to 75.0%, a drop of 0.314 [0.245, 0.386] holds the "
        "limit 0.1; about 149 pairs would decide if the value stays"
    )


@pytest.mark.parametrize(
    ("family", "of", "told"),
    [
        (1, 1, ""),
        (1, 3, "3 parts"),
        (15, 1, "15 limits"),
        (15, 3, "3 parts and 15 limits"),
    ],
)
def test_a_bound_is_corrected_for_several_only(family: int, of: int, told: str) -> None:
    facts = {"corrected_low": 0.2, "of": of, "others": []}
    one = replace(E_CIRCUIT, limit="cka.layer", subject="a", facts=facts, family=family)
    said = wording.reason(one).partition(" (lower bound corrected for ")[2]
    assert said == (f"{told} 0.2)" if told else "")
    layer = replace(one, subject="layer 2", facts=facts | {"of": 3})
    assert " for 3 layers" in wording.reason(layer)


def test_a_number_without_spread_is_told_without_pairs() -> None:
    exact = replace(
        E_CIRCUIT, limit="rotation", estimate=exactly(1.5), facts={"corrected_low": 1.5}
    )
    assert wording.reason(exact) == "rotation 1.5 is beyond the limit 0.1"
