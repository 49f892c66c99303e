"""Verdicts as text: consistent numbers, the evidence, and a table."""

from __future__ import annotations

import dataclasses

import pytest

from forgetguard.gate.verdict import (
    Code,
    ControlEvidence,
    Estimate,
    Outcome,
    SubjectEvidence,
    UnitEvidence,
    Verdict,
    exactly,
)
from forgetguard.measures.samples import Note
from forgetguard.report import terminal, wording

ESTIMATE = Estimate(0.3141, 0.2449, 0.3862, coverage=0.9, n=64)
VERDICT = Verdict(
    circuit="ioi",
    capability="indirect objects",
    limit="dcv.circuit",
    bound=0.1,
    outcome=Outcome.FAIL,
    estimate=ESTIMATE,
    code=Code.BEYOND,
    facts={"corrected_low": 0.2449},
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.31, "0.31"),
        (0.31415, "0.314"),
        (-0.0249, "-0.0249"),
        (-0.0, "0"),
        (1.0, "1"),
        (999.4, "999"),
        (12345.6, "12346"),
        (-12345.6, "-12346"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert wording.number(value) == text


def test_an_interval_stands_behind_its_value() -> None:
    assert wording.interval(ESTIMATE) == "0.314 [0.245, 0.386]"
    assert wording.interval(exactly(0.3141)) == "0.314"


@pytest.mark.parametrize(
    ("limit", "words"),
    [("dcv.head", "DCV"), ("accuracy.drop", "accuracy drop"), ("readout.drop", "readout drop")],
)
def test_a_limit_says_what_it_bounds(limit: str, words: str) -> None:
    verdict = dataclasses.replace(VERDICT, limit=limit)
    assert terminal.measured(verdict).startswith(f"{words} 0.314 ")


def test_a_verdict_without_an_estimate_shows_no_number() -> None:
    verdict = dataclasses.replace(
        VERDICT,
        outcome=Outcome.ABSTAIN,
        estimate=None,
        code=Code.TOO_FEW,
        facts={"count": 7, "dropped": 2, "least": 8},
    )
    lines = terminal.failure_lines(verdict)
    assert lines[0] == f"ABSTAIN: {wording.reason(verdict)} (ioi dcv.circuit)"
    assert "0.3" not in "\n".join(lines)


def test_subjects_are_counted_and_cut() -> None:
    heads = tuple(SubjectEvidence(f"L0H{i}", ESTIMATE, ESTIMATE) for i in range(7))
    lines = terminal.failure_lines(dataclasses.replace(VERDICT, subjects=heads))
    assert "  worst heads (5 of 7)" in lines
    assert sum("L0H" in line for line in lines) == 5


def test_a_head_that_abstains_says_so() -> None:
    note = Note("no_importance")
    head = SubjectEvidence("L1H0", None, ESTIMATE, notes=(note,))
    line = f"L1H0  DCV not measurable  importance 0.314 [0.245, 0.386]  {wording.note(note)}"
    assert line in text(subjects=(head,))


@pytest.mark.parametrize(
    ("names", "title"), [(["layer 0", "layer 3"], "layers"), (["a.weight", "b.weight"], "parts")]
)
def test_parts_that_are_no_heads_are_told_without_an_importance(
    names: list[str], title: str
) -> None:
    parts = tuple(SubjectEvidence(name, exactly(0.25)) for name in names)
    shown = text(limit="rotation", estimate=exactly(0.25), subjects=parts, subject=names[0])
    assert f"  worst {title}\n    {names[0]}" in shown
    assert "rotation 0.25\n" in shown
    assert ", exact\n" in shown
    assert "importance" not in shown


def test_prompts_without_an_answer_are_one_line_each() -> None:
    shown = text(units=(UnitEvidence("once\nupon", 1.25),))
    assert "  prompts hurt most\n    1.25  'once\\nupon'" in shown


def test_prompts_stay_on_one_line_and_show_their_end() -> None:
    pair = UnitEvidence("a\n" + "x" * 500 + " end", 0.5, "b", " y", None, 2.0, 1.5, 1.0)
    lines = terminal.failure_lines(dataclasses.replace(VERDICT, units=(pair,)))
    [clean] = [line for line in lines if line.endswith(" end'")]
    assert len(clean) < 200
    assert "against" not in "\n".join(lines)
    assert any(" 2 -> 1 (1.5 " in line for line in lines)
    assert all("\n" not in line for line in lines)


def test_what_the_models_say_stands_beside_a_pair() -> None:
    pair = UnitEvidence("a", 0.5, "b", " y", " z", 2.0, 1.0, 1.0, " y", " the")
    assert "base says ' y', tuned ' the'" in text(units=(pair,))
    same = dataclasses.replace(pair, tuned_says=" y")
    assert "both say ' y'" in text(units=(same,))
    unknown = dataclasses.replace(pair, base_says=None)
    assert "say" not in text(units=(unknown,)).partition("'a'")[2]


def test_pairs_that_changed_sides_are_called_so_and_counted() -> None:
    pairs = tuple(UnitEvidence(f"{i}", 0.5, "b", " y", " z", 2.0, None, -1.0) for i in range(5))
    facts = VERDICT.facts | {"before": 1.0, "now": 0.6, "lost": 24, "won": 2}
    shown = text(units=pairs, limit="accuracy.drop", facts=facts)
    assert "(3 of 24)" in shown
    assert "(24 lost, 2 won)" in shown


def test_heads_that_lost_nothing_are_only_counted() -> None:
    nothing = dataclasses.replace(ESTIMATE, value=0.0, low=0.0, high=0.0)
    heads = (
        SubjectEvidence("L1H1", ESTIMATE, ESTIMATE),
        SubjectEvidence("L1H2", nothing, ESTIMATE),
    )
    shown = text(subjects=heads)
    assert "; 1 lost nothing" in shown
    assert "L1H1 " in shown
    assert "L1H2" not in shown


def test_the_place_and_the_command_come_last() -> None:
    verdict = dataclasses.replace(VERDICT, file="ioi.circuit.yaml", line=9)
    lines = terminal.failure_lines(verdict, rerun="pytest x")
    assert lines[-2:] == ["  declared in ioi.circuit.yaml:9", "  run only this: pytest x"]


def test_table_columns_are_aligned() -> None:
    rows = [
        terminal.verdict_row(VERDICT),
        terminal.verdict_row(dataclasses.replace(VERDICT, circuit="induction")),
    ]
    header, *lines = terminal.table(rows)
    column = header.index("limit")
    assert all(line[column:].startswith("dcv.circuit") for line in lines)
    assert lines[0].endswith("FAIL")


def test_totals_count_every_outcome() -> None:
    assert terminal.totals([]) == "0 pass"
    text = terminal.totals(["pass", "fail", "fail", "abstain", "error", "skipped"], not_run=3)
    assert text == "1 pass, 2 fail, 1 abstain, 1 error, 1 skipped, 3 not run"


def text(**changes: object) -> str:
    return "\n".join(terminal.failure_lines(dataclasses.replace(VERDICT, **changes)))  # type: ignore[arg-type]


def test_a_failure_says_from_which_value_on_it_would_be_seen() -> None:
    assert "would fail 80 % of the time from 0.143 on\n" in text(detectable=0.1427) + "\n"
    assert "from 0.143 on, as one of 15 limits" in text(detectable=0.1427, family=15)
    sparse = text(detectable=0.1427, facts={"detectable_sparse": 0.31})
    assert "from 0.143 on (from 0.31 on" in sparse
    assert "would fail" not in text()


def test_a_sequential_verdict_says_how_many_pairs_might_have_been_drawn() -> None:
    assert "64 of at most 256 prompt pairs" in text(budget=256)
    assert ", 64 prompt pairs" in text()


def test_a_number_held_by_the_floor_is_not_called_a_plain_dcv() -> None:
    facts = {"over": "itself"}
    found = dataclasses.replace(VERDICT, limit="dcv.head", subject="L1H0", facts=facts)
    assert terminal.measured(found) == "L1H0 DCV 0.314 [0.245, 0.386]"
    floored = dataclasses.replace(found, facts={"over": "floor"})
    assert terminal.measured(floored) == "L1H0 floored DCV 0.314 [0.245, 0.386]"


def control(name: str, value: float | None, why: str = "") -> ControlEvidence:
    dcv = None if value is None else dataclasses.replace(ESTIMATE, value=value)
    note = Note("other_heads", {"why": why}) if why else None
    return ControlEvidence(name, ("L0H0",), dcv, note)


def test_controls_are_one_line() -> None:
    several = (control("random 1", 0.02), control("random 2", -0.01), control("induction", 0.1))
    assert (
        "  controls: 2 random sets -0.01 to 0.02, induction 0.1; this circuit 0.314, more than any"
        in text(controls=several).split("\n")
    )
    above = (control("random 1", 0.02, "3 of 4, no more are left"), control("ioi", 0.5))
    assert (
        "controls: a random set 0.02 (3 of 4, no more are left), ioi 0.5; this circuit 0.314, "
        "reached by 1 of 2" in text(controls=above)
    )
    assert "controls" not in text()


def test_controls_that_could_not_be_measured_say_why() -> None:
    assert "controls: nothing to compare (no other heads)" in text(
        controls=(control("random", None, "no other heads"),)
    )
