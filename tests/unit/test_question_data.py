"""Question files: what is read, what is told about mistakes, and the tiny family's own task."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from examples.studies import tiny_questions
from examples.studies.tiny import vocabulary
from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.reward import reward
from forgetguard.recipes.data.sciknoweval import read_questions
from forgetguard.recipes.data.substances import PROPERTIES, SUBSTANCES, is_held_out

CHOICE: dict[str, Any] = {
    "prompt": {"default": "Answer with a letter."},
    "question": "How many atoms has 'O=O'?",
    "choices": {"text": ["3", "2", "1", "18"], "label": ["A", "B", "C", "D"]},
    "answerKey": "B",
    "type": "mcq-4-choices",
    "domain": "Chemistry",
    "details": {"level": "L3", "task": "t", "subtask": "s", "source": "web"},
    "answer": "",
}
FILLING: dict[str, Any] = {
    "prompt": {"default": "Balance the equation."},
    "question": "H2 + O2 = H2O\nThe balanced equation is:",
    "answer": "2H2 + O2 = 2H2O",
    "type": "filling",
    "answerKey": "",
    "choices": {"text": [], "label": []},
}


def write(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    file = folder / name
    texts = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file


def complaint(*paths: Path) -> str:
    with pytest.raises(SpecificationError) as caught:
        read_questions(*paths)
    return str(caught.value)


def test_options_are_rendered_into_the_prompt_in_the_one_layout(tmp_path: Path) -> None:
    file = write(tmp_path, CHOICE, "", FILLING)
    choice, filling = read_questions(file)
    assert choice.prompt == (
        "Answer with a letter.\n\nHow many atoms has 'O=O'?\n\nA. 3\nB. 2\nC. 1\nD. 18\n\nAnswer:"
    )
    assert (choice.answer, choice.valid, choice.kind) == (" B", frozenset("B"), "choice")
    assert choice.options == ("A", "B", "C", "D")
    assert choice.where == f"{file}:1"
    assert filling.prompt == (
        "Balance the equation.\n\nH2 + O2 = H2O\nThe balanced equation is:\n\nAnswer:"
    )
    assert (filling.answer, filling.kind) == (" 2H2 + O2 = 2H2O", "text")
    assert filling.valid == {"2H2 + O2 = 2H2O"}
    assert filling.where == f"{file}:3"


def test_every_question_that_is_read_is_rewarded_for_its_own_answer(tmp_path: Path) -> None:
    for question in read_questions(write(tmp_path, CHOICE, FILLING)):
        assert reward(question, question.answer) == 1.0
        assert reward(question, question.prompt) == 0.0


def test_one_text_is_one_group_wherever_it_stands_and_case_makes_another(tmp_path: Path) -> None:
    spaced = CHOICE | {"question": "How many  atoms has\n'O=O'?", "answerKey": "C"}
    other = CHOICE | {"question": "How many atoms has 'o=O'?"}
    write(tmp_path, CHOICE, FILLING, name="a.jsonl")
    write(tmp_path, spaced, other, name="b.jsonl")
    first, filling, again, cased = read_questions(tmp_path)
    assert first.group == again.group
    assert len({first.group, filling.group, cased.group}) == 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'question': 1}", "not JSON: "),
        ("[1]", "a line must be a JSON object, got [1]"),
        ("[" * 100_000, "not JSON"),
        ('{"type": "filling", "type": "filling"}', "'type' is given twice: keep one"),
        ({"type": "filling"}, "prompt.default is missing"),
        ({"type": "filling"}, "question is missing: add it"),
        ({"type": "filling"}, "answer is missing: add it"),
        (CHOICE | {"prompt": {}}, "prompt.default is missing"),
        (CHOICE | {"prompt": ["x"]}, "prompt.default must be text, got ['x']"),
        (CHOICE | {"question": " "}, "question must not be empty"),
        (CHOICE | {"question": 3}, "question must be text, got 3"),
        (CHOICE | {"question": "\ud800"}, "half a character"),
        (CHOICE | {"type": "open-ended-qa"}, "type is 'open-ended-qa': answers of types"),
        (CHOICE | {"type": None}, "type is None"),
        (CHOICE | {"answerKey": ""}, "answerKey must not be empty"),
        (CHOICE | {"answerKey": "E"}, "answerKey is 'E': it must be one of A, B, C, D"),
        (CHOICE | {"answerKey": "b"}, "answerKey is 'b'"),
        (CHOICE | {"choices": None}, "choices.text must be a list of texts, got nothing"),
        (CHOICE | {"choices": {"text": "3"}}, "choices.text must be a list of texts, got '3'"),
        (
            CHOICE | {"choices": {"text": ["3", 2], "label": ["A", "B"]}},
            "choices.text[1] must be text, got 2",
        ),
        (
            CHOICE | {"choices": {"text": ["3", "2", "1", " "], "label": list("ABCD")}},
            "choices.text[3] must not be empty",
        ),
        (
            CHOICE | {"choices": {"text": ["3", "2", "1"], "label": list("ABCD")}},
            "4 labels and 3 texts where the type says 4",
        ),
        (
            CHOICE | {"choices": {"text": ["3"], "label": ["B"]}, "type": "mcq-1-choices"},
            "give as many of each, 2 or more",
        ),
        (
            CHOICE | {"choices": {"text": ["3", "2", "1", "0"], "label": list("ABBD")}},
            "2 options have the label 'B'",
        ),
        (
            CHOICE | {"choices": {"text": ["3", "2", "2 ", "0"], "label": list("ABCD")}},
            "2 options have the text '2'",
        ),
        (FILLING | {"answer": ""}, "answer must not be empty"),
        (FILLING | {"answer": "</s>"}, "cannot be read back from a completion"),
        (FILLING | {"valid": ["x"]}, "is not among valid: add it there"),
        (FILLING | {"valid": []}, "valid must be a list of texts, got []"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, row: object, message: str) -> None:
    file = write(tmp_path, CHOICE, "", FILLING, row)
    lines = complaint(file).split("\n")
    assert all(line.startswith(f"{file}:4: ") for line in lines)
    assert any(message in line for line in lines)


def test_all_problems_of_all_files_are_told_at_once_up_to_twenty(tmp_path: Path) -> None:
    first = write(tmp_path, *[FILLING | {"answer": ""}] * 15, name="a.jsonl")
    second = write(tmp_path, CHOICE, *[CHOICE | {"question": ""}] * 15, name="b.jsonl")
    lines = complaint(first, second).split("\n")
    assert lines[0] == f"{first}:1: answer must not be empty"
    assert lines[19] == f"{second}:6: question must not be empty"
    assert lines[20] == "... and 10 more problems"
    assert len(lines) == 21


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b"\n" + '{"question": "é"}'.encode("latin-1"))
    empty = write(tmp_path, "", name="nothing.jsonl")
    assert "no such question file" in complaint(tmp_path / "gone.jsonl")
    assert f"{latin}:2: byte 0xe9 is not UTF-8" in complaint(latin)
    assert f"{empty}:1: the file holds no question" in complaint(empty)
    assert "holds no question" in complaint(latin, empty)
    assert "no question file is given" in complaint()
    (tmp_path / "folder").mkdir()
    assert "holds no .jsonl file" in complaint(tmp_path / "folder")


def test_a_file_with_one_answer_to_everything_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, CHOICE, CHOICE | {"question": "And now?"})
    assert f"{file}:1: all questions have the answer ' B' (2 read): nothing can be learned" in (
        complaint(file)
    )
    assert "nothing can be learned" in complaint(write(tmp_path, FILLING))


def test_one_prompt_with_two_right_answers_is_a_contradiction(tmp_path: Path) -> None:
    file = write(tmp_path, CHOICE, CHOICE, CHOICE | {"answerKey": "C"})
    assert complaint(file) == (
        f"{file}:3: the same question as {file}:1 with the right answers ['C'], there ['B']: "
        "remove one of them"
    )


def test_a_filling_row_with_valid_answers_is_open(tmp_path: Path) -> None:
    valid = ["salt", "honey"]
    file = write(tmp_path, CHOICE, FILLING | {"answer": "honey", "valid": valid})
    question = read_questions(file)[1]
    assert (question.kind, question.answer) == ("open", " honey")
    assert question.valid == set(valid)


PARTS: tuple[tiny_questions.Part, ...] = ("training", "validation", "evaluation")
VARIANTS: tuple[tiny_questions.Variant, ...] = ("open", "single")


@pytest.mark.parametrize("variant", VARIANTS)
def test_substance_questions_are_words_of_the_tiny_vocabulary(
    variant: tiny_questions.Variant,
) -> None:
    tokenizer = vocabulary.tokenizer()
    for part in PARTS:
        for question in islice(tiny_questions.stream(variant, part, 0), 300):
            ids = tokenizer(question.prompt + question.answer).input_ids
            prompt = tokenizer(question.prompt).input_ids
            assert tokenizer.unk_token_id not in ids
            assert len(ids) == len(prompt) + 1, "an answer is one token"
            assert reward(question, question.answer) == 1.0


def test_no_part_shares_a_prompt_with_another_or_with_the_base_s_training() -> None:
    drawn = {
        part: {
            question.prompt
            for seed in (0, 1)
            for question in islice(tiny_questions.stream("open", part, seed), 2_000)
        }
        for part in PARTS
    }
    assert not drawn["validation"] & drawn["evaluation"]
    assert all(map(is_held_out, drawn["validation"] | drawn["evaluation"]))
    assert not any(map(is_held_out, drawn["training"]))
    assert min(len(drawn["validation"]), len(drawn["evaluation"])) >= 200


def test_held_out_prompts_come_once_and_the_seed_orders_everything() -> None:
    once = [question.prompt for question in tiny_questions.stream("single", "evaluation", 3)]
    assert len(once) == len(set(once))
    again = [question.prompt for question in tiny_questions.stream("open", "evaluation", 3)]
    assert once == again, "both variants ask the same"
    other = [question.prompt for question in tiny_questions.stream("single", "evaluation", 4)]
    assert once != other
    assert set(once) == set(other)


def test_open_labels_are_uniform_over_the_valid_and_single_has_one() -> None:
    counts = Counter(
        question.answer.strip()
        for question in islice(tiny_questions.stream("open", "training", 0), 4_000)
        if " soluble" in question.prompt
    )
    assert set(counts) == set(PROPERTIES["soluble"])
    assert min(counts.values()) > 0.6 * max(counts.values())
    for question in islice(tiny_questions.stream("single", "training", 0), 200):
        assert question.valid == {question.answer.strip()}
        assert question.options == SUBSTANCES


def test_the_right_answers_of_single_are_valid_ones_and_all_differ() -> None:
    assert set(tiny_questions.RIGHT) == set(PROPERTIES)
    assert all(right in PROPERTIES[wanted] for wanted, right in tiny_questions.RIGHT.items())
    assert len(set(tiny_questions.RIGHT.values())) == len(PROPERTIES)


def test_an_unknown_variant_or_part_is_told() -> None:
    with pytest.raises(SpecificationError, match=r"'both'.* open, single"):
        tiny_questions.stream("both", "training", 0)  # type: ignore[arg-type]
    with pytest.raises(SpecificationError, match=r"'test'.* training"):
        tiny_questions.stream("open", "test", 0)  # type: ignore[arg-type]
