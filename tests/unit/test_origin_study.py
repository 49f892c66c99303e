"""The study of planted damage: what counts as the right part, and a page that is its data's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.studies import origins
from examples.studies.real_verdicts.changes import Change, Shape, outside
from forgetguard.measures.origin_parts import Part

DOCS = Path(__file__).parents[2] / "docs"
SHAPE = Shape(layers=30, heads=9, groups=3, width=64)


@pytest.mark.parametrize(
    ("first", "right"),
    [
        (Part("attention", (6, 11)), True),
        (Part("q", (8, 8)), True),
        (Part("attention", (12, 17)), False),
        (Part("mlp", (6, 11)), False),
        (Part("tied_embedding"), False),
    ],
)
def test_a_head_is_found_in_the_attention_of_its_layers(first: Part, right: bool) -> None:
    assert origins.is_right(Change("x", "head", None, head=(8, 4)), SHAPE, first) is right


def test_each_plant_outside_attention_has_one_kind_of_part() -> None:
    parts = [
        Part("unembedding"), Part("embedding"), Part("mlp", (24, 29)), Part("mlp", (0, 5)),
        Part("norms"), Part("final_norm"),
    ]  # fmt: skip
    named = [
        [part.kind for part in parts if origins.is_right(change, SHAPE, part)]
        for change in outside(SHAPE, [1, 2])
    ]
    assert named == [
        ["unembedding"], ["unembedding"], ["unembedding"], ["embedding"], ["embedding"],
        ["mlp"], ["mlp"], ["mlp"], ["norms"], ["final_norm"],
    ]  # fmt: skip


def test_the_page_shows_the_results_that_lie_beside_it() -> None:
    rows = json.loads((DOCS / "origin" / "plants.json").read_text())
    page = (DOCS / "origin.md").read_text()
    assert origins.fill(page, rows) == page
    lost = [one for one in rows if one["lost"]]
    assert sum(one["right"] for one in lost) == len(lost)
