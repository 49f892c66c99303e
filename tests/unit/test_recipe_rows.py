"""Questions as rows of token ids, and which of them cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from forgetguard.checkpoints.loading import load_tokenizer
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.training.rows import IGNORED, collate, encode

END = 0


@dataclass
class Encoded:
    input_ids: list[int]


@dataclass
class Merging:
    """A tokenizer of single letters that merges the pairs it is given, as BPE does."""

    pairs: Sequence[str] = ()
    adds_end: bool = False
    eos_token_id: int | None = END
    seen: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> Encoded:
        ids, at = [], 0
        while at < len(text):
            width = 2 if text[at : at + 2] in self.pairs else 1
            ids.append(sum(ord(one) * 256**i for i, one in enumerate(text[at : at + width])))
            at += width
        return Encoded([*ids, END] if self.adds_end else ids)


def question(prompt: str, answer: str, where: str = "") -> Question:
    return Question(prompt, answer, frozenset({answer.strip()}), "text", where=where)


def test_labels_are_the_answer_and_the_end_of_sequence_alone() -> None:
    (row,) = encode([question("ab", " c")], Merging(), 99, "training").rows
    assert row.ids == (ord("a"), ord("b"), ord(" "), ord("c"), END)
    assert row.labels == (IGNORED, IGNORED, ord(" "), ord("c"), END)


def test_a_tokenizer_that_ends_texts_itself_ends_no_prompt_and_no_answer_twice() -> None:
    (row,) = encode([question("ab", " c")], Merging(adds_end=True), 99, "training").rows
    assert row.ids == (ord("a"), ord("b"), ord(" "), ord("c"), END)


def test_the_tiny_tokenizer_splits_where_the_answer_begins() -> None:
    tokenizer = load_tokenizer(resolve("tiny:base", "base"))
    (row,) = encode([question("Question: Mary likes", " iron")], tokenizer, 99, "training").rows
    kept = [label for label in row.labels if label != IGNORED]
    assert kept == [*tokenizer(" iron").input_ids, tokenizer.eos_token_id]


def test_an_answer_that_merges_with_its_prompt_is_left_out_and_counted() -> None:
    many = [question("ab", " c")] * 19 + [question("ab", "b")]
    rows = encode(many, Merging(pairs=("bb",)), 99, "training")
    assert (len(rows.rows), rows.merged, rows.too_long) == (19, 1, 0)


def test_a_question_that_is_too_long_is_left_out_and_counted_not_cut() -> None:
    many = [question("ab", " c")] * 19 + [question("ab" * 9, " c")]
    rows = encode(many, Merging(), 8, "training")
    assert (len(rows.rows), rows.merged, rows.too_long) == (19, 0, 1)


def test_losing_more_than_a_tenth_of_the_questions_is_an_error() -> None:
    many = [question("ab", " c")] * 8 + [question("ab", "b")] + [question("ab" * 9, " c")]
    with pytest.raises(CapabilityError, match=r"2 of 10 .* 1 .* 1 "):
        encode(many, Merging(pairs=("bb",)), 8, "training")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (question("ab", "  ", "q.jsonl:7"), "q.jsonl:7: the answer is empty"),
        (question(" ", "c", "q.jsonl:8"), "q.jsonl:8: the prompt is empty"),
        (question("who", ""), "'who': the answer is empty"),
    ],
)
def test_an_empty_prompt_or_answer_is_refused_with_its_place(bad: Question, said: str) -> None:
    with pytest.raises(SpecificationError, match=said):
        encode([question("ab", " c"), bad], Merging(), 99, "training")


def test_no_questions_and_no_end_of_sequence_are_refused() -> None:
    with pytest.raises(SpecificationError, match="no replayed questions"):
        encode([], Merging(), 99, "replayed")
    with pytest.raises(CapabilityError, match="no end-of-sequence token"):
        encode([question("ab", " c")], Merging(eos_token_id=None), 99, "training")


def test_a_batch_is_padded_on_the_right_where_nothing_is_attended_or_learned() -> None:
    short = {"input_ids": [5, 6], "labels": [IGNORED, 6], "weight": 0.5}
    long = {"input_ids": [7, 8, 9], "labels": [IGNORED, 8, 9], "weight": 1.5}
    batch = collate([short, long], padding=3)
    assert batch["input_ids"].tolist() == [[5, 6, 3], [7, 8, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED], [IGNORED, 8, 9]]
    assert batch["weight"].tolist() == [0.5, 1.5]
    assert "replayed" not in batch
