"""Counterfactuals over made-up rows of SciKnowEval's form, and the ranking of options."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_tiny import plain_model, plain_tokenizer

from examples.studies.chemistry import (
    Row,
    geometric_means,
    key_swaps,
    molecule_swaps,
    ranked_first,
    read_rows,
    task_swaps,
)
from forgetguard.anatomy.locate import locate
from forgetguard.errors import CapabilityError, MeasurementError, SpecificationError

WEIGHT, ATOMS = (
    'What is the weight of the molecule "{}"?',
    'What is the charge of the molecule "{}"?',
)


def row(frame: str, molecule: str, options: list[str], right: str) -> dict[str, object]:
    return {
        "prompt": {"default": "Choose."},
        "question": frame.format(molecule),
        "choices": {"text": options, "label": list("ABCD")},
        "answerKey": "ABCD"[options.index(right)],
        "type": "mcq-4-choices",
    }


ROWS = [
    row(WEIGHT, "CCO", ["10", "20", "30", "400"], "20"),
    row(WEIGHT, "CCN", ["11", "21", "31", "41"], "31"),
    row(WEIGHT, "CCCC", ["12", "22", "32", "42"], "12"),  # a longer name: never exchanged
    row(ATOMS, "CCO", ["3", "4", "5", "6"], "6"),
]


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Row, ...]:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", "utf-8")
    return read_rows(file)


def test_molecules_of_one_length_are_exchanged_and_each_prompt_has_its_own_answer(
    rows: tuple[Row, ...],
) -> None:
    (pair,) = molecule_swaps(rows, len, random.Random(0))
    assert pair.clean.replace("CCO", "CCN") == pair.counterfactual
    assert (pair.answer, pair.distractor) == (" 20", " 31")
    options = pair.clean.split("\n")[1:5]
    assert {"20", "31"} < set(options)
    assert len(set(options)) == 4


def test_another_question_of_the_same_molecule_keeps_the_molecule_in_its_place(
    rows: tuple[Row, ...],
) -> None:
    (pair,) = task_swaps(rows, len, random.Random(0))
    assert pair.clean.replace("weight", "charge") == pair.counterfactual
    assert (pair.answer, pair.distractor) == (" 20", " 6")
    # Where the two questions are not of one length nothing stays in its place.
    longer = [Row(one.question.replace("charge", "valence"), *parts(one)) for one in rows]
    assert not list(task_swaps(longer, len, random.Random(0)))


def parts(one: Row) -> tuple[tuple[str, ...], str]:
    return one.options, one.right


def test_the_key_changes_with_the_right_options_place(rows: tuple[Row, ...]) -> None:
    found = list(key_swaps(rows, len, random.Random(0)))
    assert len(found) == 4
    for one, pair in zip(rows, found, strict=True):
        for prompt, letter in ((pair.clean, pair.answer), (pair.counterfactual, pair.distractor)):
            assert letter is not None
            assert f"{letter.strip()}. {one.right}\n" in prompt
        assert len(pair.clean) == len(pair.counterfactual)


def test_options_are_ranked_by_their_mean_log_probability_token_by_token() -> None:
    asked = (
        Row("The capital of France is", ("Paris", "red bag", "wood"), "Paris"),
        Row("Words: bag letter key bag", ("ice", "letter", "key"), "letter"),
    )
    found = geometric_means(locate(plain_model("base")), plain_tokenizer(), asked)
    model, tokenizer = plain_model("base"), plain_tokenizer()
    for one, values in zip(asked, found, strict=True):
        for text, value in zip(one.options, values, strict=True):
            before = tokenizer(one.prompt()).input_ids
            ids = tokenizer(f"{one.prompt()} {text}").input_ids
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            scored = [logits[at - 1, ids[at]].item() for at in range(len(before), len(ids))]
            assert value == pytest.approx(sum(scored) / len(scored), abs=1e-5)


def test_the_score_is_the_share_of_rows_whose_right_option_leads() -> None:
    asked = [Row("a", ("x", "y"), "x"), Row("b", ("x", "y"), "y"), Row("c", ("x", "y"), "y")]
    values = [np.array(one) for one in ([-1.0, -2.0], [-1.0, -2.0], [-1.0, -1.0])]
    assert ranked_first(asked, values) == pytest.approx((1 + 0 + 0.5) / 3)
    with pytest.raises(MeasurementError):
        ranked_first([], [])


def test_bad_rows_and_options_are_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**ROWS[0], "answerKey": "E"}), "utf-8")
    with pytest.raises(SpecificationError, match=r"rows\.jsonl:1: answerKey"):
        read_rows(file)
    with pytest.raises(CapabilityError, match="together with the prompt's end"):
        geometric_means(
            locate(plain_model("base")),
            lambda text: {"input_ids": [len(text)]},
            [Row("a", ("b",), "b")],
        )
