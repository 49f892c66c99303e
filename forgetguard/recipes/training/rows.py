"""Questions as rows of token ids whose answer, and its end, is what the loss is taken on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.recipes.data.question import Question

IGNORED = -100  # the label of a token that no loss is taken on, as transformers has it
MOST_LEFT_OUT = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """Ids of prompt, answer and end of sequence; labels are the ids of the last two alone."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a set of questions; the questions left out because they are too long, or because
    their answer runs into their prompt in the tokenizer."""

    rows: tuple[Row, ...]
    too_long: int
    merged: int


def encode(questions: Sequence[Question], tokenizer: Any, max_length: int, what: str) -> Rows:
    """Tokenise questions; answer ids are sliced from those of the whole text.

    Raises:
        SpecificationError: there are no questions, or one has an empty prompt or answer.
        CapabilityError: the tokenizer has no end of sequence, or more than a tenth of the questions
            would have to be left out.
    """
    if not questions:
        raise SpecificationError(f"there are no {what} questions: nothing can be learned")
    if tokenizer.eos_token_id is None:
        raise CapabilityError(
            "the base's tokenizer has no end-of-sequence token, so a model cannot learn where an "
            "answer ends: set eos_token in its tokenizer_config.json"
        )
    encoded = [_encode(question, tokenizer) for question in questions]
    whole = [row for row in encoded if row is not None]
    rows = tuple(row for row in whole if len(row.ids) <= max_length)
    merged, too_long = len(encoded) - len(whole), len(whole) - len(rows)
    if merged + too_long > MOST_LEFT_OUT * len(questions):
        raise CapabilityError(
            f"{merged + too_long} of {len(questions)} {what} questions cannot be trained on: "
            f"{too_long} have more than max_length={max_length} tokens (raise it), {merged} merge "
            f"the end of the prompt with the answer (end prompts without a space, and begin "
            f"answers with one)"
        )
    return Rows(rows, too_long, merged)


def _encode(question: Question, tokenizer: Any) -> Row | None:
    if not question.prompt.strip() or not question.answer.strip():
        part = "prompt" if not question.prompt.strip() else "answer"
        raise SpecificationError(
            f"{question.place}: the {part} is empty: give one, or leave the line out"
        )
    prompt = _ids(question.prompt, tokenizer)
    ids = [*_ids(question.prompt + question.answer, tokenizer), tokenizer.eos_token_id]
    if not prompt or ids[: len(prompt)] != prompt or len(ids) < len(prompt) + 2:
        return None
    labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
    return Row(tuple(ids), tuple(labels))


def _ids(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = list(tokenizer(text).input_ids)
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def collate(columns: Sequence[dict[str, Any]], padding: int) -> dict[str, Tensor]:
    """A batch: `input_ids`, `labels` and `attention_mask`, [row, pos], padded on the right;
    `weight` and `replayed`, [row], where the rows have them."""

    def padded(rows: Iterable[Sequence[int]], fill: int) -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], True, fill)

    batch = {
        "input_ids": padded((one["input_ids"] for one in columns), padding),
        "labels": padded((one["labels"] for one in columns), IGNORED),
        "attention_mask": padded(([1] * len(one["input_ids"]) for one in columns), 0),
    }
    for key in ("weight", "replayed"):
        if key in columns[0]:
            batch[key] = torch.tensor([one[key] for one in columns])
    return batch
