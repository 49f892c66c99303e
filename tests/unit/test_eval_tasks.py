"""`lm_eval:` in gate files and question files: errors with their lines, and round trips."""

from __future__ import annotations

import json
import sys
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from eval_tasks import write_tasks

from forgetguard.capabilities.pairs import Prompt
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate.declaration import GateSpec, Limit
from forgetguard.gate.estimate import Case
from forgetguard.gate.prompt_files import read_questions
from forgetguard.gate.records import spec_from_dict, spec_to_dict
from forgetguard.gate.schema import load_gate_file, parse_gate, save
from forgetguard.gate.suitability import check_eval_tasks
from forgetguard.measures import lm_eval_calibration, lm_eval_flips
from forgetguard.measures.documents import CONFIDENCE, SCORE, EvalTasks, Scores, document
from forgetguard.measures.measure import Series
from forgetguard.measures.samples import Key, Samples
from forgetguard.measures.task_names import unknown_names

HEAD = "forgetguard: 2\n"
LIMIT = "limits: {lm_eval.drop: {max: 0.05}}\n"


def test_a_gate_file_reads_back_from_yaml_and_from_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    question = {"question": "a", "answer": "b", "options": ["b", "c"]}
    lines = [json.dumps(question | {"question": text}) for text in "xy"]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines), "utf-8")
    given = (
        "lm_eval: {tasks: [arc_easy], include: tasks, questions: mine.jsonl, limit: 9, seed: 3, "
        "chat_template: true, metrics: [acc], batch_size: 4}\n"
    )
    spec = parse_gate(HEAD + given + LIMIT, tmp_path / "a.gate.yaml")
    found = spec.pairs
    assert isinstance(found, EvalTasks)
    assert found == EvalTasks(
        ("arc_easy",), tmp_path / "tasks", tmp_path / "mine.jsonl", (), 9, 3, True, ("acc",), 4
    )
    assert [one.answer for one in found.questions] == ["b", "b"]
    save(spec, tmp_path / "b.gate.yaml")
    assert load_gate_file(tmp_path / "b.gate.yaml").pairs == found
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))).pairs == found


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (HEAD + "lm_eval: {limit: 8}\n" + LIMIT, 2, "'tasks' or 'questions' is missing"),
        (HEAD + "lm_eval:\n  tasks: []\n" + LIMIT, 3, "tasks is empty"),
        (HEAD + "lm_eval:\n  tasks: [a, a]\n" + LIMIT, 3, "a is given twice"),
        (HEAD + "lm_eval: {tasks: [a]}\nprompts: [b, c]\n" + LIMIT, 3, "into a file of its own"),
        (HEAD + "lm_eval: {tasks: [a]}\nchat_template: true\n" + LIMIT, 3, "inside lm_eval"),
        (HEAD + "lm_eval:\n  tasks: [a]\n  limit: 0\n" + LIMIT, 4, "limit must be between 2 and"),
        (HEAD + "lm_eval:\n  tasks: [a]\n  include: nowhere\n" + LIMIT, 4, "is no folder"),
        (HEAD + "lm_eval:\n  tasks: [a]\n  lmit: 8\n" + LIMIT, 4, "'limit'"),
        (HEAD + "prompts: [a, b]\n" + LIMIT, 3, "needs tasks"),
        (
            HEAD + "lm_eval: {tasks: [a]}\nlimits:\n  kl.forward: {max: 1}\n",
            4,
            "into a file of its own",
        ),
        (HEAD + "lm_eval: {tasks: [a]}\nlimits: {lm_eval.drop: {max: 5}}\n", 3, "below 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    file = tmp_path / "a.gate.yaml"
    with pytest.raises(SpecificationError) as caught:
        parse_gate(text, file)
    (told,) = [one for one in str(caught.value).split("\n") if one.startswith(f"{file}:{line}: ")]
    assert words in told


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ('{"question": "r", "answer": "d", "options": ["b", "c"]}', "none of the options"),
        ('{"question": "r", "answer": "b", "options": ["b"]}', "two or more"),
        ('{"question": "r", "answer": "b", "options": ["b", "b"]}', "each once"),
        ('{"question": "r", "answer": "b"}', "on every line or on none"),
        ('{"question": "q", "answer": "b", "options": ["b", "c"]}', "same question as on line 1"),
        ('{"question": "r", "options": ["b", "c"]}', "'answer' is missing"),
        ('{"question": "r", "answer": "b", "options": "b"}', "must be a list"),
        ('{"question": "r", "answer": "b", "choices": ["b", "c"]}', "unknown key"),
    ],
)
def test_a_question_file_is_checked_line_by_line(tmp_path: Path, second: str, words: str) -> None:
    file = tmp_path / "q.jsonl"
    first = '{"question": "q", "answer": "b", "options": ["b", "c"]}'
    file.write_text(f"{first}\n{second}\n", "utf-8")
    with pytest.raises(SpecificationError) as caught:
        read_questions(file)
    assert f"{file}:2: " in str(caught.value)
    assert words in str(caught.value)


def case_of(units: int) -> Case:
    spec = GateSpec("a", "", EvalTasks(("t",)), "logit_diff", (), (Limit("lm_eval.drop", 0.05),))
    prompts = tuple(Prompt(f"{place:04}") for place in range(units))
    samples = Samples(prompts, {Key("x", "", "tuned"): np.zeros(units)})
    return Case.of(spec, samples, seed=0, family=1)


def test_two_models_that_guess_anew_have_flips_but_none_is_held_against_them() -> None:
    draw, units, options = np.random.default_rng(0), 4000, 4
    knows = draw.random(units) < 0.4
    before, now = (
        np.where(knows, 1.0, (draw.random(units) < 1 / options).astype(float)) for _ in range(2)
    )
    raw = (before * (1 - now)).mean()
    assert raw > 0.09
    flips = before * (1 - now) - (1 - before) / options
    held = case_of(units).score_drop(Series(now, before, also=flips), 0.05)
    assert held.corrected_low < 0.01
    assert abs(held.estimate.value) < 0.02
    # Half of what was known forgotten, as much learned elsewhere: the drop is about 0.
    swapped = np.where(knows & (draw.random(units) < 0.5), 0.0, now)
    swapped = np.where(~knows & (draw.random(units) < 0.4), 1.0, swapped)
    flips = before * (1 - swapped) - (1 - before) / options
    net = case_of(units).score_drop(Series(swapped, before), 0.05)
    held = case_of(units).score_drop(Series(swapped, before, also=flips), 0.05)
    assert net.estimate.value < 0.03
    assert held.corrected_low > 0.10


def test_graded_scores_that_do_not_change_are_not_taken_to_be_exact() -> None:
    same = np.full(20, 0.3)
    held = case_of(20).score_drop(Series(same, same), 0.05)
    assert held.estimate.value == 0
    assert held.high == pytest.approx(1 - 0.05 ** (1 / 20))
    known = case_of(20).score_drop(Series(same, same, same, same), 0.05)
    assert known.high == 0
    graded = case_of(20).score_drop(Series(same - np.arange(20) / 100, same), 0.05)
    assert graded.estimate.value == pytest.approx(0.095)
    assert 0 < graded.estimate.low < 0.095 < graded.high < 0.13


def test_flips_of_a_task_without_right_and_wrong_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right, graded = np.array([1.0, 0.0]), np.array([0.5, 0.2])
    found = Scores({SCORE: {"a acc": right, "b rouge": graded}}, ("p", "q"), "tuned")
    monkeypatch.setattr("forgetguard.measures.harness.paired", lambda *_: (found, found))
    with pytest.raises(MeasurementError, match="no metric of b is right or wrong"):
        lm_eval_flips.compare(None, found)  # type: ignore[arg-type]


def test_a_document_carries_its_task_place_and_digest() -> None:
    assert document("arc_easy", 17, "0a1b", "Which?").clean == "arc_easy #17 (0a1b): Which?"


def test_squared_calibration_error_is_the_mean_product_of_two_documents_of_a_bin() -> None:
    draw = np.random.default_rng(0)
    confidence = np.concatenate([draw.random(80), [1.0, 0.1, 0.0]])
    right = (draw.random(83) < confidence**2).astype(float)
    bins: dict[int, list[float]] = {}
    for one, held in zip(confidence.tolist(), right.tolist(), strict=True):
        bins.setdefault(min(int(one * 10), 9), []).append(one - held)
    expected = sum(
        len(rows) * np.mean([one * other for one, other in permutations(rows, 2)])
        for rows in bins.values()
    )
    found = lm_eval_calibration.contributions(confidence, right)
    assert found.mean() == pytest.approx(expected / 83, rel=1e-12)
    alone = lm_eval_calibration.contributions(np.array([0.05, 0.5]), np.array([1.0, 0.0]))
    assert not alone.any()


def test_it_is_unbiased_where_the_absolute_error_is_not() -> None:
    """Of a model that is well calibrated, and of one that is 10 points too sure."""
    draw, read, absolute = np.random.default_rng(1), ([], []), ([], [])
    for _ in range(2000):
        confidence = 0.25 + 0.7 * draw.random(100)
        for place, off in enumerate((0.0, 0.1)):
            right = (draw.random(100) < confidence - off).astype(float)
            read[place].append(lm_eval_calibration.contributions(confidence, right).mean())
            gaps = np.bincount((confidence * 10).astype(int), weights=confidence - right)
            absolute[place].append(abs(gaps).sum() / 100)
    assert np.mean(read, axis=1) == pytest.approx([0, 0.01], abs=5e-4)
    assert np.mean(absolute[0]) > 0.09


def test_calibration_needs_options_and_acc(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Scores({SCORE: {"a acc_norm": np.ones(2)}, CONFIDENCE: {}}, ("p", "q"), "tuned")
    monkeypatch.setattr("forgetguard.measures.harness.paired", lambda *_: (found, found))
    with pytest.raises(MeasurementError, match="metric acc"):
        lm_eval_calibration.compare(SimpleNamespace(documents=()), found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("tasks: [tiny_choise]", ["no task 'tiny_choise': did you mean 'tiny_choice'?"]),
        ("tasks: [tiny_choice, tiny_say, arc_easy]", []),
        ("tasks: [tiny_choice], metrics: [acc_nrom, acc, f1]", ["no metric 'acc_nrom'"]),
        (
            "tasks: [tiny_say, such_task_anywhere], metrics: [no_such]",
            ["'such_task_anywhere'", "'no_such'"],
        ),
        ("tasks: [mmlu, ai2_arc]", []),  # a group and a tag
        ("tasks: [gpqa, kbl, flores_afr-eng]", []),  # tags of templates, and a composed name
        ("tasks: [own_suite]", []),  # a tag that a template gives
    ],
)
def test_names_that_lm_eval_cannot_know_are_told_without_it(
    given: str, told: list[str], tmp_path: Path
) -> None:
    write_tasks(tmp_path)
    (tmp_path / "_base_yaml").write_text("tag: own_suite\n")
    file = tmp_path / "a.gate.yaml"
    file.write_text(f"{HEAD}lm_eval: {{{given}, include: .}}\n{LIMIT}")
    spec = parse_gate(file.read_text(), file)
    if not told:
        check_eval_tasks([spec])
        return
    with pytest.raises(SpecificationError) as caught:
        check_eval_tasks([spec])
    lines = str(caught.value).splitlines()
    assert len(lines) == len(told)
    for line, wrong in zip(lines, told, strict=True):
        assert line.startswith(f"{tmp_path}/a.gate.yaml:2: lm_eval: ")
        assert wrong in line


def test_names_are_not_judged_without_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert list(unknown_names(EvalTasks(("arc_esay",)))) == []
