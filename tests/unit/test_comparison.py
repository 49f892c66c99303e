"""Comparisons: every derived number against its closed form, the table, and the command."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import build

import examples.studies.comparison.__main__ as command
from examples.studies.comparison import compare
from examples.studies.comparison.derive import Derived, correlations, derive, split_correlations
from examples.studies.comparison.mask_shift import Mask
from examples.studies.comparison.reading import Reading, circuit_of, cut_vocabulary
from examples.studies.comparison.result import Comparison, Split
from examples.studies.comparison.retention import retention
from examples.studies.comparison.table import comparison_text, comparisons_json
from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Head, Member
from forgetguard.capabilities.capability import Capability
from forgetguard.errors import (
    BaseCannotError,
    CapabilityError,
    CheckpointError,
    MeasurementError,
    SpecificationError,
)
from forgetguard.measures.behaviour import Behaviour
from forgetguard.measures.faithfulness import Faithfulness
from forgetguard.measures.necessity import Roles
from forgetguard.patching.forward import forward

A, B, C, D, E, F = HEADS = tuple(Head(layer, index) for layer in (0, 1) for index in (0, 1, 2))
PAIRS = 4
RNG = np.random.default_rng(0)
LOST = {A: 3.0, B: 2.0, C: 0.5, D: 0.0, E: -0.25, F: 1.0}


def mask(*members: Member, at: float = 1.0) -> dict[Member, float]:
    return {head: at if head in members else 0.0 for head in HEADS}


def roles(lost: dict[Head, float], whole: float = 5.0) -> Roles:
    rows = np.array([[value] * PAIRS for value in lost.values()])
    return Roles(HEADS, rows, rows / 2, np.full(PAIRS, whole))


def reading(
    role: str,
    masks: Sequence[Mask],
    *,
    base: Sequence[Mask] = (),
    other: Sequence[Mask] = (),
    unable: str | None = None,
    lost: dict[Head, float] | None = None,
    nothing: float = 1.0,
    whole: float = 5.0,
) -> Reading:
    """A model whose readout with k heads of its circuit left is nothing + k, and 5 whole."""
    circuits = tuple(dict.fromkeys(map(circuit_of, [*masks, *base])))
    sizes = np.array([[float(len(circuit))] * PAIRS for circuit in circuits])
    right = np.array([True, True, True, False])
    said = np.zeros(PAIRS, dtype=int)
    clean = Behaviour(np.full(PAIRS, nothing + whole), right, right, said)
    logprob = Behaviour(np.log([0.9, 0.7, 0.5, 0.3]), right, right, said)
    return Reading(
        role,
        f"the {role}",
        clean,
        np.array([0.9, 0.7, 0.5, 0.3]),
        tuple(masks),
        tuple(other),
        unable,
        circuits,
        Faithfulness("counterfactual", clean, np.full(PAIRS, nothing), nothing + sizes),
        Faithfulness("counterfactual", logprob, np.full(PAIRS, -9.0), np.log(sizes / 10 + 0.01)),
        np.log(sizes / 20 + 0.01),
        np.log(np.full(PAIRS, 0.8)),
        roles(LOST if lost is None else lost, whole),
    )


BASE_MASKS = (mask(A, B), mask(A, B, at=0.75))
BASE = reading("base", BASE_MASKS, other=(mask(A, B), mask(A, C)))
TUNED = reading("tuned", (mask(A), mask(A, C)), base=BASE_MASKS)
REFERENCE = reading("reference", (mask(A, B, D), mask(A, B)), base=BASE_MASKS)
ABLE = (BASE, TUNED, REFERENCE)


def found(*readings: Reading, delta: float = 0.5, least_stability: float = 0.5) -> Derived:
    return derive(readings or ABLE, delta=delta, least_stability=least_stability)


def comparison(*readings: Reading) -> Comparison:
    derived = found(*readings)
    return Comparison(
        "induction",
        "logit_diff",
        derived.columns,
        len(HEADS),
        Split(64, 64, 2),
        (0, 1),
        {"method": "binary_masking", "steps": 300},
        "counterfactual",
        0.5,
        0.5,
        derived.ceiling,
        derived.vulnerable,
        derived.vulnerable_undefined,
        derived.against,
        ("dropped 2: a word is unknown to the tokenizer",),
    )


# --- Masks and circuits ---------------------------------------------------------------------------


def test_a_circuit_is_what_a_mask_replaces() -> None:
    assert circuit_of({A: 0.5, B: 0.500001, C: 1.0, D: 0.0}) == {B, C}
    assert [column.sizes for column in found().columns] == [(2, 2), (1, 2), (3, 2)]


def test_shifts_are_of_masks_averaged_over_seeds() -> None:
    base, tuned, _ = found().columns
    assert base.shift is None
    assert tuned.shift == pytest.approx({A: 1 - 0.875, B: -0.875, C: 0.5, D: 0.0, E: 0.0, F: 0.0})
    assert tuned.mean_shift == pytest.approx((0.125 + 0.875 + 0.5) / 6)
    assert tuned.most_moved(2) == (B, C)


def test_the_shift_between_runs_stands_beside_that_of_the_bases_own_runs() -> None:
    base, tuned, _ = found().columns
    assert base.run_shift is not None
    assert tuned.run_shift is not None
    assert (base.run_shift.mean, base.run_shift.n) == (pytest.approx(0.5 / 6), 1)
    sizes = [1 / 6, 2 / 6, (0.25 + 0.75) / 6, (0.25 + 0.75 + 1) / 6]
    assert tuned.run_shift.n == 4
    assert tuned.run_shift.mean == pytest.approx(sum(sizes) / 4)
    assert tuned.run_shift.high == pytest.approx(max(sizes))


def test_vulnerable_heads_are_those_lost_against_the_reference() -> None:
    derived = found()
    assert derived.against == "reference"
    assert derived.vulnerable is not None
    assert derived.vulnerable.members == (B,)
    assert derived.vulnerable.drop[B] == 1.0
    assert derived.vulnerable.share[D] == 0.5  # of two tuned and two reference runs, in one
    assert derived.vulnerable.share_within == pytest.approx(
        {A: 0.0, B: 0.0, C: 0.25, D: 0.25, E: 0.0, F: 0.0}
    )


def test_without_a_reference_the_set_is_against_the_base_and_says_so() -> None:
    derived = found(BASE, TUNED)
    assert derived.against == "base"
    assert derived.vulnerable is not None
    assert derived.vulnerable.members == (B,)
    assert "the paper's C_vuln needs a reference" in " ".join(
        comparison_text(comparison(BASE, TUNED)).split()
    )


def test_retention_is_that_of_the_measure_with_a_ceiling_over_both_halves() -> None:
    derived = found()
    runs, tuned = [{A, B}, {A, B}], [{A}, {A, C}]
    other_half = [{A, B}, {A, C}]
    expected = retention(
        runs, tuned, other_half, HEADS, 0.5, base_scores=BASE_MASKS, tuned_scores=TUNED.masks
    )
    assert derived.columns[1].retention == expected
    assert expected.retained.value.mean == 0.5
    assert derived.ceiling == expected.ceiling
    assert derived.ceiling is not None
    assert derived.ceiling.corrected is not None
    # 1 for the same two of six heads, (1 - 2/3) / (2 - 2/3) for one of them.
    assert derived.ceiling.corrected.mean == pytest.approx((1 + 0.25) / 2)
    assert expected.across is not None
    assert expected.across.corrected is not None
    # {A} lies in either circuit of the other half; {A, C} is one, and shares A with the other.
    assert expected.across.corrected.mean == pytest.approx((1 + 1 + 0.25 + 1) / 4)
    assert expected.relative == pytest.approx(0.8125 / 0.625)
    assert derived.columns[0].stability == expected.base_stability
    assert derived.columns[1].stability == expected.tuned_stability
    assert derived.columns[0].retention is None


def test_one_seed_leaves_retention_without_evidence() -> None:
    base = reading("base", BASE_MASKS[:1], other=[mask(A, B)])
    tuned = found(base, reading("tuned", [mask(A)], base=BASE_MASKS[:1])).columns[1]
    assert tuned.retention is not None
    assert "one run" in (tuned.retention.abstained or "")
    assert tuned.retention.retained.value.mean == 0.5


def test_an_empty_circuit_of_the_base_is_said_not_raised() -> None:
    base = reading("base", [mask(), mask(A)], other=[mask(A), mask(A)])
    derived = found(base, reading("tuned", [mask(A), mask(A)], base=base.masks))
    assert derived.ceiling is None
    assert "empty" in derived.columns[0].undefined["ceiling"]
    assert "empty" in derived.columns[1].undefined["retention"]
    assert derived.columns[1].retention is None


# --- Faithfulness, transfer, necessity ------------------------------------------------------------


def test_faithfulness_is_read_in_the_circuits_of_the_own_seeds() -> None:
    tuned = found().columns[1]
    assert tuned.faithfulness is not None
    assert tuned.paper_faithfulness is not None
    assert tuned.switched is not None
    assert (tuned.faithfulness.low, tuned.faithfulness.high) == (1 / 5, 2 / 5)
    assert tuned.paper_faithfulness.low == pytest.approx(0.11 / 0.6)
    assert tuned.paper_faithfulness.high == pytest.approx(0.21 / 0.6)
    assert tuned.switched.mean == pytest.approx((0.06 + 0.11) / 2 / 0.8)
    assert tuned.whole == 5.0


def test_transfer_is_read_in_the_bases_circuits() -> None:
    base, tuned, _ = found().columns
    assert base.transfer is None
    assert tuned.transfer is not None
    assert tuned.paper_transfer is not None
    assert (tuned.transfer.mean, tuned.transfer.low, tuned.transfer.n) == (0.4, 0.4, 2)
    assert tuned.paper_transfer.mean == pytest.approx(0.21 / 0.6)


def test_behaviour_is_the_mean_over_pairs() -> None:
    base = found().columns[0]
    assert (base.accuracy, base.readout) == (0.75, 6.0)
    assert base.probability == pytest.approx(0.6)


def test_where_the_heads_do_nothing_faithfulness_and_necessity_are_undefined() -> None:
    dead = reading("tuned", TUNED.masks, base=BASE_MASKS, whole=-1.0)
    tuned = found(BASE, dead).columns[1]
    assert tuned.faithfulness is None
    assert tuned.transfer is None
    assert tuned.necessity is None
    assert {"faithfulness", "necessity"} <= tuned.undefined.keys()
    assert tuned.paper_faithfulness is not None


def test_no_probability_at_all_leaves_the_ratio_undefined() -> None:
    no = np.zeros(PAIRS, dtype=np.bool_)
    never = Behaviour(np.full(PAIRS, -1e5), no, no, np.zeros(PAIRS, int))
    lost = replace(TUNED, alone_logprob=replace(TUNED.alone_logprob, clean=never))
    tuned = found(BASE, lost).columns[1]
    assert tuned.paper_faithfulness is None
    assert "no probability" in tuned.undefined["paper_faithfulness"]


def test_necessity_correlates_over_heads_not_over_pairs() -> None:
    doubled = reading(
        "tuned", TUNED.masks, base=BASE_MASKS, lost={head: 2 * x for head, x in LOST.items()}
    )
    ranks = dict(zip(LOST, (9.0, 4.0, 1.0, 0.2, 0.1, 2.0), strict=True))
    curved = reading("reference", REFERENCE.masks, base=BASE_MASKS, lost=ranks)
    base, tuned, reference = found(BASE, doubled, curved).columns
    assert base.necessity == {head: x / 5 for head, x in LOST.items()}
    assert base.sufficiency == {head: x / 10 for head, x in LOST.items()}
    assert (tuned.pearson, tuned.spearman) == (pytest.approx(1), pytest.approx(1))
    assert reference.spearman == pytest.approx(1)
    assert reference.pearson == pytest.approx(
        np.corrcoef(list(LOST.values()), list(ranks.values()))[0, 1]
    )


def test_necessity_turned_round_reads_minus_one() -> None:
    turned = {head: -value for head, value in LOST.items()}
    assert correlations(LOST, turned) == (pytest.approx(-1), pytest.approx(-1))


def test_a_constant_necessity_has_no_correlation() -> None:
    assert correlations(LOST, dict.fromkeys(LOST, 1.0)) is None
    assert correlations({A: 1.0, B: 2.0}, {A: 1.0, B: 2.0}) is None
    level = reading("tuned", TUNED.masks, base=BASE_MASKS, lost=dict.fromkeys(LOST, 1.0))
    tuned = found(BASE, level).columns[1]
    assert tuned.pearson is None
    assert "necessity correlation" in tuned.undefined


def test_the_bases_own_correlation_is_of_two_halves_of_the_pairs() -> None:
    assert split_correlations(roles(LOST)) == (pytest.approx(1), pytest.approx(1))
    noise = Roles(HEADS, RNG.normal(size=(6, 40)), np.zeros((6, 40)), np.ones(40))
    halves = split_correlations(noise)
    assert halves is not None
    assert halves[0] < 0.95


def test_correlations_do_not_depend_on_the_order_of_the_second() -> None:
    turned = dict(reversed(LOST.items()))
    assert correlations(LOST, turned) == (pytest.approx(1), pytest.approx(1))


# --- A model that cannot any more -----------------------------------------------------------------

UNABLE = reading("tuned", (), base=BASE_MASKS, unable="tuned cannot do it any more")


def test_a_tuned_model_that_cannot_is_a_finding() -> None:
    derived = found(BASE, UNABLE, REFERENCE)
    tuned = derived.columns[1]
    assert not tuned.able
    assert tuned.undefined["circuit"] == "tuned cannot do it any more"
    assert tuned.sizes == ()
    assert tuned.retention is tuned.shift is tuned.faithfulness is tuned.run_shift is None
    assert tuned.transfer is not None
    assert derived.vulnerable is None
    assert derived.vulnerable_undefined == "tuned cannot do it any more"
    assert derived.columns[2].retention is not None


def test_a_base_against_itself_reads_no_change() -> None:
    copy = replace(BASE, role="tuned", other_masks=())
    derived = found(BASE, copy)
    tuned = derived.columns[1]
    assert tuned.shift == dict.fromkeys(HEADS, 0.0)
    assert tuned.most_moved(3) == ()
    assert tuned.mean_shift == 0.0
    assert tuned.transfer == tuned.faithfulness
    assert tuned.paper_transfer == tuned.paper_faithfulness
    assert tuned.pearson == pytest.approx(1)
    assert tuned.retention is not None
    assert tuned.retention.retained.value.low == 1.0
    assert tuned.retention.across == derived.ceiling
    assert derived.ceiling is not None
    assert derived.ceiling.value.mean == 0.75, "one that is below 1, or nothing would be seen"
    assert tuned.retention.relative == 1.0
    assert derived.vulnerable is not None
    assert derived.vulnerable.members == ()


def test_a_delta_that_is_none_is_refused() -> None:
    with pytest.raises(MeasurementError, match="delta"):
        found(delta=1.0)


# --- Plain values and the table -------------------------------------------------------------------


def test_a_comparison_is_json() -> None:
    made = comparison(*ABLE)
    data = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert data["columns"][1]["shift"]["L0H1"] == -0.875
    assert data["vulnerable"]["members"] == ["L0H1"]
    assert data["columns"][1]["retention"]["retained"]["value"]["mean"] == 0.5
    assert data["columns"][1]["retention"]["across"]["corrected"]["mean"] == 0.8125
    assert data["columns"][1]["retention"]["relative"] == 1.3
    assert data["columns"][0]["retention"] is None
    document = json.loads(comparisons_json([made, made]))
    assert len(document["comparisons"]) == 2
    assert (document["schema"], document["schema_version"]) == ("forgetguard.comparison", 2)


def test_columns_are_had_by_role() -> None:
    assert comparison().column("tuned").checkpoint == "the tuned"
    with pytest.raises(KeyError):
        comparison(BASE, TUNED).column("reference")


def long_names(reading: Reading) -> Reading:
    return replace(reading, checkpoint="/a/very/long/path" * 12)


@pytest.mark.parametrize(
    "readings",
    [ABLE, (BASE, TUNED), (BASE, UNABLE), (BASE, UNABLE, REFERENCE), tuple(map(long_names, ABLE))],
    ids=["three", "two", "unable", "unable of three", "long paths"],
)
def test_no_line_of_the_table_is_longer_than_100_characters(readings: tuple[Reading, ...]) -> None:
    text = comparison_text(comparison(*readings))
    assert max(map(len, text.splitlines())) <= 100
    assert "nan" not in text
    assert "None" not in text


def lines_of(text: str, start: str) -> list[list[str]]:
    """The cells of the rows that begin with `start`."""
    return [
        line.strip().removeprefix(start).split()
        for line in text.splitlines()
        if line.strip().startswith(start)
    ]


def test_the_table_has_a_column_for_each_model() -> None:
    text = comparison_text(comparison())
    assert lines_of(text, "accuracy") == [["0.75", "0.75", "0.75"]]
    assert lines_of(text, "heads  ") == [["2", "2", "1", "2", "3", "2"]]
    assert lines_of(text, "retention  ")[0][:2] == ["0.50", "1.00"]
    ceiling, across, of_ceiling = (
        lines_of(text, f"{name} *")[0]
        for name in (
            "split-half ceiling, corrected", "across halves, corrected", "across halves / ceiling"
        )
    )  # fmt: skip
    assert ceiling == ["0.62", "(0.25..1.00)"]
    assert across[:2] == ["0.81", "(0.25..1.00)"]
    assert of_ceiling[0] == "1.3"
    assert "dropped 2: a word is unknown" in text
    assert "L0H1  0.88     0.00      1.00" in text


def test_a_shift_too_small_to_be_seen_is_not_shown() -> None:
    barely = [{**mask(A, B), C: 1e-9}, mask(A, B, at=0.75)]
    text = comparison_text(comparison(BASE, reading("tuned", barely, base=BASE_MASKS)))
    assert lines_of(text, "most moved heads, m(M) - m(base)") == [["none"]]
    lines = text.splitlines()
    (at,) = [at for at, line in enumerate(lines) if "most moved heads" in line]
    assert lines[at + 1].strip().startswith("mean size of the shift"), "no empty line in a table"
    assert lines_of(comparison_text(comparison(BASE, TUNED)), "most moved")[0][-2:] == [
        "L0H1",
        "-0.88",
    ]


def test_abstaining_and_its_reason_are_seen() -> None:
    base = reading("base", BASE_MASKS[:1], other=[mask(A, B)])
    text = comparison_text(comparison(base, reading("tuned", [mask(A)], base=BASE_MASKS[:1])))
    assert lines_of(text, "may retention be read? *") == [["ABSTAIN"]]
    assert "tuned, ABSTAIN on retention: one run of the base" in text


ONE_SEED = (
    reading("base", BASE_MASKS[:1], other=[mask(A, B)]),
    reading("tuned", [mask(A)], base=BASE_MASKS[:1]),
    reading("reference", [mask(A, C)], base=BASE_MASKS[:1]),
)
NO_OTHER_HALF = (replace(BASE, other_masks=()), TUNED, REFERENCE)
EMPTY = (BASE, reading("tuned", (mask(), mask(A)), base=BASE_MASKS), REFERENCE)
EVERY_HEAD = (BASE, reading("tuned", (mask(*HEADS),) * 2, base=BASE_MASKS), REFERENCE)
ABSTAINING = {
    "one seed": (ONE_SEED, ["1.00", "0.25"], ["1", "0.25"]),
    "no other half": (NO_OTHER_HALF, ["-", "-"], ["-", "-"]),
    # {A, B, D} holds {A, B}, and shares with {A, C} what it shares by chance: 0.
    "an empty circuit": (EMPTY, ["-", "0.56 (0.00..1.00)"], ["-", "0.9"]),
    "every head": (EVERY_HEAD, ["-", "0.56 (0.00..1.00)"], ["-", "0.9"]),
}


@pytest.mark.parametrize("case", ABSTAINING)
def test_every_cell_stays_in_its_column_where_one_abstains(case: str) -> None:
    readings, across, of_ceiling = ABSTAINING[case]
    lines = comparison_text(comparison(*readings)).splitlines()
    (top,) = [at for at, line in enumerate(lines) if line.split() == [one.role for one in readings]]
    starts = [lines[top].index(one.role) for one in readings]
    table = lines[top : lines.index("", top)]
    ends = [*starts[1:], None]
    cells = {
        line[: starts[0]].strip(): [
            line[start:end] for start, end in zip(starts, ends, strict=True)
        ]
        for line in table
    }
    assert all(line[start - 1 : start] in ("", " ") for line in table for start in starts)
    assert "ABSTAIN" in "".join(cells["may retention be read? *"])
    for name, expected in (
        ("across halves, corrected *", across),
        ("across halves / ceiling *", of_ceiling),
    ):
        assert [cell.strip() for cell in cells[name]] == ["", *expected]


def test_a_model_that_cannot_shows_dashes_and_why() -> None:
    text = comparison_text(comparison(BASE, UNABLE))
    assert "tuned, no circuit: tuned cannot do it any more" in text
    assert "none: tuned cannot do it any more" in text
    assert lines_of(text, "retention  ") == [["-"]]
    assert lines_of(text, "across halves, corrected *") == [["-"]]
    assert lines_of(text, "across halves / ceiling *") == [["-"]]


def test_what_is_not_the_papers_is_marked() -> None:
    rows = comparison_text(comparison()).splitlines()
    ours = {line.split("  ")[1] for line in rows if line.startswith("  ") and " *" in line}
    papers = {"accuracy", "faithfulness, F(C|M)/F(M)", "retention", "heads shared"}
    assert {"faithfulness, normalised *", "retention by chance *", "Pearson *"} <= ours
    assert {"across halves, corrected *", "across halves / ceiling *"} <= ours
    assert not {f"{name} *" for name in papers} & ours


# --- The vocabulary, and the command --------------------------------------------------------------


def test_a_cut_vocabulary_is_cut_everywhere_and_only_inside() -> None:
    anatomy = locate(build("qwen2"))
    ids = torch.tensor([[1, 2, 3, 4]])
    whole = forward(anatomy, ids, [3])
    with cut_vocabulary(anatomy, 7):
        assert torch.equal(forward(anatomy, ids, [3]), whole[..., :7])
    with cut_vocabulary(anatomy, None):
        assert torch.equal(forward(anatomy, ids, [3]), whole)
    assert forward(anatomy, ids, [3]).shape == whole.shape


MODELS = ("base=tiny:base", "tuned=tiny:sft")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.COMMAND.options(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["base=tiny:base"], "tuned missing"),
        (["tuned=tiny:sft"], "base missing"),
        (["base=tiny:base", "tuned=tiny:sft", "tuned=tiny:lora"], "given twice"),
        (["base=tiny:base", "other=tiny:sft"], "'other'"),
        (["base=tiny:base", "tuned="], "tuned="),
        ([*MODELS, "--set", "steps"], "KEY=VALUE"),
        ([*MODELS, "--set", "steps=[1"], "YAML"),
        ([*MODELS, "--seeds", "1,1"], "each once"),
        ([*MODELS, "--seeds", "-1"], "whole numbers"),
        ([*MODELS, "--delta", "1"], "--delta 1"),
        ([*MODELS, "--least-stability", "2"], "--least-stability 2"),
        ([*MODELS, "--pairs", "15"], "16 or more"),
        ([*MODELS, "--readout", "loss"], "logit_diff"),
        ([*MODELS, "--prompts", "x.jsonl"], "not both"),
    ],
)
def test_what_cannot_be_run_is_said(words: list[str], message: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        command.read_plan(parsed(*words, "--task", "induction"))
    assert all(word in str(refused.value) for word in message.split())


def test_a_setting_that_masking_does_not_have_is_refused() -> None:
    asked = parsed(*MODELS, "--set", "stepz=3", "--task", "induction")
    with pytest.raises(SpecificationError, match="'stepz'"):
        command.carry_out(command.read_plan(asked))


def test_the_base_is_not_compared_with_itself_unnoticed() -> None:
    asked = parsed("base=tiny:base", "tuned=tiny:base", "--task", "induction")
    with pytest.raises(CheckpointError):
        command.read_plan(asked)


def test_tasks_or_a_prompt_file_must_be_given() -> None:
    with pytest.raises(SpecificationError, match=r"--task .*--prompts"):
        command.read_plan(parsed(*MODELS))
    with pytest.raises(CapabilityError, match="juggling"):
        command.read_plan(parsed(*MODELS, "--task", "juggling"))


def test_what_was_asked_for_is_read() -> None:
    words = "--task ioi --task induction --task ioi --seeds 3,1 --set steps=7 --no-cache"
    plan = command.read_plan(parsed(*MODELS, "reference=tiny:lora", *words.split()))
    assert plan.tasks == ("ioi", "induction")
    assert plan.seeds == (3, 1)
    assert plan.settings == {"steps": 7}
    assert not plan.keep
    assert list(plan.specs) == ["base", "tuned", "reference"]


def test_the_commands_defaults_are_those_from_python() -> None:
    plan = command.read_plan(parsed(*MODELS, "--task", "ioi"))
    known = inspect.signature(compare.compare).parameters
    assert plan.pairs == compare.PAIRS
    assert plan.seeds == known["seeds"].default
    assert plan.delta == known["delta"].default
    assert plan.least_stability == known["least_stability"].default
    assert plan.keep == known["keep"].default


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base can do induction only; nothing is measured."""

    def fake(pair: object, capability: Capability, **_: object) -> str:
        if capability.name != "induction":
            raise BaseCannotError(f"THE BASE CANNOT DO {capability.name!r}")
        return capability.name

    monkeypatch.setattr(compare, "compare", fake)


@pytest.mark.usefixtures("compared")
def test_a_capability_that_the_base_cannot_do_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = parsed(*MODELS, "--task", "ioi", "--task", "induction")
    assert command.carry_out(command.read_plan(asked)) == ["induction"]
    assert capsys.readouterr().err == "THE BASE CANNOT DO 'ioi'\n"
    with pytest.raises(BaseCannotError):
        command.carry_out(command.read_plan(parsed(*MODELS, "--task", "ioi")))
