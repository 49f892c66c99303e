"""Splits are exact, seeded, stratified, and keep duplicates on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from examples.studies.reference.splitting import split
from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question


def made(
    count: int, *, file: str = "a.jsonl", kind: str = "text", group: str = ""
) -> list[Question]:
    return [
        Question(f"{file} {i}", " x", frozenset("x"), kind, (), group, f"{file}:{i + 1}")
        for i in range(count)
    ]


def of_file(questions: Sequence[Question]) -> Counter[str]:
    return Counter(question.where.rpartition(":")[0] for question in questions)


def test_every_question_is_on_one_side_and_the_evaluation_has_its_size() -> None:
    questions = made(60)
    train, evaluation = split(questions, 7, 42)
    assert (len(train), len(evaluation)) == (53, 7)
    assert {q.prompt for q in train} | {q.prompt for q in evaluation} == {
        q.prompt for q in questions
    }
    assert [q for q in questions if q in train] == train, "the order is kept"
    assert [q for q in questions if q in evaluation] == evaluation


def test_a_seed_gives_one_split_and_another_seed_another() -> None:
    questions = made(60)
    assert split(questions, 20, 1) == split(questions, 20, 1)
    assert split(questions, 20, 1) != split(questions, 20, 2)


def test_where_the_files_lie_does_not_matter() -> None:
    here = [*made(30), *made(30, file="b.jsonl")]
    there = [replace(question, where=f"/data/z{question.where}") for question in here]
    prompts = [{q.prompt for q in split(questions, 20, 5)[1]} for questions in (here, there)]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_on_one_side_even_across_files(seed: int) -> None:
    twins = [
        replace(question, group=f"twin {i % 15}")
        for i, question in enumerate([*made(15), *made(15, file="b.jsonl")])
    ]
    train, evaluation = split([*twins, *made(10, file="c.jsonl")], 11, seed)
    assert len(evaluation) == 11
    groups = [{q.group for q in side if q.group} for side in (train, evaluation)]
    assert not groups[0] & groups[1]
    assert groups[1], "some twins are evaluated, so that the claim can fail"


@pytest.mark.parametrize("seed", range(10))
def test_each_file_and_kind_gives_its_share(seed: int) -> None:
    questions = [*made(60), *made(30, file="b.jsonl"), *made(10, file="b.jsonl", kind="choice")]
    evaluation = split(questions, 10, seed)[1]
    assert of_file(evaluation) == {"a.jsonl": 6, "b.jsonl": 4}
    assert Counter(q.kind for q in evaluation) == {"text": 9, "choice": 1}


def test_shares_are_rounded_by_largest_remainders() -> None:
    questions = [*made(22), *made(22, file="b.jsonl"), *made(56, file="c.jsonl")]
    # of 10: exact shares 2.2, 2.2 and 5.6
    assert of_file(split(questions, 10, 0)[1]) == {"a.jsonl": 2, "b.jsonl": 2, "c.jsonl": 6}


@pytest.mark.parametrize("evaluation", [0, -1, 10, 11])
def test_a_side_without_questions_is_an_error(evaluation: int) -> None:
    with pytest.raises(SpecificationError, match=f"evaluation .*{evaluation} of 10"):
        split(made(10), evaluation, 0)


def test_too_few_questions_are_an_error() -> None:
    for questions in ([], made(1)):
        with pytest.raises(SpecificationError, match="cannot be split: give 2 or more"):
            split(questions, 1, 0)


def test_a_size_that_whole_groups_cannot_make_is_an_error() -> None:
    pairs = [*made(4, group="one"), *made(4, group="two")]
    with pytest.raises(SpecificationError, match=r"4 of 8 .* 4"):
        split(pairs, 5, 0)
    with pytest.raises(SpecificationError, match="0 of 8"):
        split(pairs, 3, 0)
