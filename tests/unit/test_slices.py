"""Beside a loss stands where it lies: the pairs that changed sides, what is said on them, and the
template or word class that carries it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from known_samples import changed, measured, read, spec

from forgetguard.errors import SpecificationError
from forgetguard.gate import slices
from forgetguard.gate.declaration import Limit
from forgetguard.gate.records import samples_from_dict, samples_to_dict
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Verdict
from forgetguard.measures.samples import Note, Samples

PAIRS = 64
TEXTS = {0: " y", 1: " the", 2: " n", 3: " a"}  # answer, another, distractor, a third


def verdict(key: str, data: Samples, maximum: float = 0.1) -> Verdict:
    return judge(spec(), Limit(key, maximum, 7), data)


def noted(found: Verdict, code: str) -> list[Note]:
    return [note for note in found.notes if note.code == code]


def lost(where: np.ndarray, *, said: int = 1, right: bool = False, templates: int = 0) -> Samples:
    """A tuned model that says another token `where` asked, and is wrong there, if not `right`."""
    data = measured(PAIRS, templates=templates)
    readout = read(data, "base_readout")
    data = changed(
        data,
        base_top1=np.ones(PAIRS),
        tuned_top1=~where,
        base_said=np.zeros(PAIRS),
        tuned_said=np.where(where, said, 0),
        tuned_correct=np.ones(PAIRS) if right else ~where,
        tuned_readout=readout - np.where(where, 0.5 if right else 9.0, 0.01),
    )
    return replace(data, tokens=TEXTS)


def every(step: int) -> np.ndarray:
    return np.arange(PAIRS) % step == 0


@pytest.mark.parametrize("key", ["accuracy.drop", "top1.drop"])
def test_an_accuracy_failure_shows_pairs_that_changed_sides_and_no_others(key: str) -> None:
    data = lost(every(4))
    # One that stays right loses most.
    data = changed(data, tuned_readout=read(data, "tuned_readout") - 20.0 * (np.arange(PAIRS) == 1))
    found = verdict(key, data)
    assert (found.facts["lost"], found.facts["won"]) == (16, 0)
    assert {int(unit.clean.split()[1]) % 4 for unit in found.units} == {0}
    assert {(unit.base_says, unit.tuned_says) for unit in found.units} == {(" y", " the")}
    assert verdict("readout.drop", data).units[0].clean == "clean 001"


def test_pairs_that_came_to_be_right_are_counted_and_not_shown() -> None:
    data = lost(every(4))
    data = changed(data, base_correct=~every(8), tuned_correct=every(8) | ~every(4))
    found = verdict("accuracy.drop", data)
    assert (found.facts["lost"], found.facts["won"]) == (8, 8)
    assert {int(unit.clean.split()[1]) % 8 for unit in found.units} == {4}


def test_units_that_lost_nothing_are_never_shown() -> None:
    data = measured(PAIRS)
    data = changed(data, tuned_readout=read(data, "base_readout") + 0.5)
    assert verdict("readout.drop", data).units == ()
    assert verdict("accuracy.drop", data).units == ()


def test_what_tuned_says_in_place_of_the_answer_is_told_even_where_names_stay() -> None:
    (note,) = noted(verdict("accuracy.drop", lost(every(4), right=True)), "said_instead")
    assert note.facts == {
        "changed": 16,
        "before": PAIRS,
        "right": 16,
        "distractor": 0,
        "tokens": [[" the", 16]],
    }
    (note,) = noted(verdict("top1.drop", lost(every(4), said=2)), "said_instead")
    assert (note.facts["distractor"], note.facts["right"], note.facts["tokens"]) == (16, 0, [])


def test_what_hardly_ever_changes_is_not_told() -> None:
    assert not noted(verdict("accuracy.drop", lost(every(16))), "said_instead")
    assert not noted(verdict("readout.drop", lost(every(4))), "said_instead")


@pytest.mark.parametrize("key", ["accuracy.drop", "readout.drop"])
def test_the_template_that_carries_the_loss_is_named(key: str) -> None:
    units = measured(PAIRS, templates=8).units
    broken = units[0].template
    data = lost(np.array([unit.template == broken for unit in units]), templates=8)
    (note,) = noted(verdict(key, data), "slice_carries")
    assert (note.facts["kind"], note.facts["slice"]) == ("template", broken)
    assert (note.facts["units"], note.facts["of"], note.facts["slices"]) == (8, PAIRS, 8)
    assert note.facts["share"] == pytest.approx(1.0, abs=0.02)
    assert note.facts["value"] > 0.5


@pytest.mark.parametrize("key", ["accuracy.drop", "readout.drop", "dcv.circuit"])
def test_a_loss_that_is_spread_evenly_has_no_template(key: str) -> None:
    spread = np.arange(PAIRS) // 8 % 2 == 0  # half of the pairs of every template
    assert not noted(verdict(key, lost(spread, templates=8)), "slice_carries")


def test_a_template_within_the_limit_or_of_one_pair_is_not_named() -> None:
    data = lost(every(8), templates=8)
    first = data.units[0].template
    here = np.array([unit.template == first for unit in data.units])
    mild = changed(data, tuned_readout=read(data, "base_readout") - np.where(here, 0.2, 0.0))
    assert not noted(verdict("readout.drop", mild), "slice_carries")
    single = measured(PAIRS)
    units = tuple(replace(unit, template=f"{i}") for i, unit in enumerate(single.units))
    data = replace(lost(np.arange(PAIRS) == 3), units=units)
    assert not noted(verdict("readout.drop", data), "slice_carries")


def classed(data: Samples, **values: list[str]) -> Samples:
    """The samples with `values` by class, one a unit ("" for none)."""
    units = tuple(
        replace(unit, classes={name: own[at] for name, own in values.items() if own[at]})
        for at, unit in enumerate(data.units)
    )
    return replace(data, units=units)


@pytest.mark.parametrize("key", ["accuracy.drop", "readout.drop"])
def test_the_class_that_carries_the_loss_is_named_across_templates(key: str) -> None:
    held_out = every(3)
    data = classed(
        lost(held_out, templates=8),
        answer=["names"] * PAIRS,
        word=["held out" if one else "common" for one in held_out],
        order=["abba", "baba"] * (PAIRS // 2),
    )
    (note,) = noted(verdict(key, data), "slice_carries")
    assert (note.facts["kind"], note.facts["slice"], note.facts["units"]) == (
        "word", "held out", 22,
    )  # fmt: skip
    # Eight templates, two classes of two; `answer` is of all pairs, and says nothing.
    assert note.facts["slices"] == 12
    assert 1e-4 <= note.facts["chance"] <= 12e-4  # none of 9999 deals, by any of 12


def test_half_of_the_pairs_can_carry_the_loss_of_a_class() -> None:
    """Twice its share would be more than all there is."""
    half = np.arange(PAIRS) < PAIRS // 2
    data = lost(half & (np.arange(PAIRS) % 4 > 0) | (np.arange(PAIRS) == PAIRS - 1))
    data = classed(data, order=["abba" if one else "baba" for one in half])
    (note,) = noted(verdict("accuracy.drop", data), "slice_carries")
    assert (note.facts["kind"], note.facts["slice"]) == ("order", "abba")
    assert note.facts["share"] == 24 / 25


def test_a_class_with_less_than_half_of_the_loss_does_not_carry_it() -> None:
    data = classed(lost(every(2)), part=["a"] * 8 + ["b"] * (PAIRS - 8))
    worse = read(data, "tuned_readout") - 9.0 * (np.arange(PAIRS) < 8)
    assert not noted(verdict("readout.drop", changed(data, tuned_readout=worse)), "slice_carries")


def test_labels_that_hold_the_same_units_are_one_slice_under_the_template() -> None:
    units = measured(PAIRS, templates=8).units
    broken = units[0].template
    data = lost(np.array([unit.template == broken for unit in units]), templates=8)
    data = classed(data, frame=[unit.template for unit in units])
    (note,) = noted(verdict("readout.drop", data), "slice_carries")
    assert (note.facts["kind"], note.facts["slices"]) == ("template", 8)


@pytest.mark.parametrize("kind", ["normal", "yes or no", "lognormal"])
def test_a_class_is_named_by_chance_in_as_many_verdicts_as_is_said(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses that have nothing to do with any of many overlapping labels."""
    monkeypatch.setattr(slices, "_DEALS", 999)
    rng, named, runs = np.random.default_rng(1), 0, 120
    for _ in range(runs):
        which = rng.random((20, PAIRS)) < rng.uniform(0.05, 0.5, size=(20, 1))
        which = which[which.sum(axis=1) >= 3]
        loss = {
            "normal": rng.normal(size=PAIRS),
            "yes or no": (rng.random(PAIRS) < 0.1).astype(float),
            "lognormal": rng.lognormal(sigma=1.5, size=PAIRS),
        }[kind]
        named += min(slices._chances(loss, which)) <= slices.CHANCE
    # 5 % of 120 are 6; more than 14 would come by chance in 1 of 1000.
    assert named <= 14


def test_a_large_slice_is_not_held_to_what_small_ones_do_by_chance() -> None:
    """Where a few pairs carry most of the loss, slices of three stray by far more standard errors
    than one of half of the pairs does: each is compared with itself."""
    rng = np.random.default_rng(0)
    which = np.zeros((31, PAIRS), dtype=bool)
    which[0, : PAIRS // 2] = True
    for row in which[1:]:
        row[rng.choice(PAIRS, 3, replace=False)] = True
    loss = np.where(which[0], rng.lognormal(sigma=1.3, size=PAIRS), 0.0)
    (alone,), together = slices._chances(loss, which[:1]), slices._chances(loss, which)
    # 31 slices: at most 31 times as often as one of them.
    assert alone < together[0] <= min(31 * alone, 0.01)


def test_of_classes_that_stand_out_the_one_with_all_of_the_loss_is_named() -> None:
    """And not a part of it, nor what holds it and as many unhurt pairs."""
    at = np.arange(PAIRS)
    hurt = at < 16
    data = classed(
        lost(hurt),
        part=["a" if one < 10 else "b" for one in at],
        key=["names" if one else "objects" for one in hurt],
        wide=["x" if one < 32 else "y" for one in at],
    )
    (note,) = noted(verdict("readout.drop", data), "slice_carries")
    assert (note.facts["kind"], note.facts["slice"], note.facts["units"]) == ("key", "names", 16)


def test_the_classes_survive_the_results_file_and_are_no_part_of_what_a_prompt_set_is() -> None:
    data = classed(lost(every(4)), order=["abba", ""] * (PAIRS // 2))
    written = samples_to_dict(data)
    assert written["classes"] == {"order": ["abba", None] * (PAIRS // 2)}
    assert [unit.classes for unit in samples_from_dict(written).units] == [
        unit.classes for unit in data.units
    ]
    plain = samples_to_dict(lost(every(4)))
    assert written["prompts_sha256"] == plain["prompts_sha256"]
    assert written["units"] == plain["units"]
    with pytest.raises(SpecificationError, match=r"classes\.order"):
        samples_from_dict(written | {"classes": {"order": ["abba"]}})


def test_what_is_said_survives_the_results_file() -> None:
    data = lost(every(4))
    again = samples_from_dict(samples_to_dict(data))
    assert again.tokens == TEXTS
    assert verdict("accuracy.drop", again) == verdict("accuracy.drop", data)
