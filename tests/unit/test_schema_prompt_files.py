"""A prompt file's mistakes are told with their lines, all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgetguard.errors import SpecificationError
from forgetguard.gate.prompt_files import read_prompt_file

PAIR = {"clean": "a b", "counterfactual": "a c", "answer": " b", "distractor": " c"}
GOOD = [json.dumps(PAIR), "", json.dumps(PAIR | {"clean": "d\u2028 b", "template": "t"})]


def write(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_empty_lines_are_skipped_and_lines_still_counted(tmp_path: Path) -> None:
    pairs = read_prompt_file(write(tmp_path, *GOOD), readout="logit_diff")
    assert [(pair.line, pair.template) for pair in pairs] == [(1, ""), (3, "t")]
    assert pairs[1].clean == "d\u2028 b"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'clean': 1}", "not JSON"),
        ("[1, 2]", "a line must be a JSON object"),
        ('{"clean": "x"}', "'answer' is missing"),
        (json.dumps(PAIR | {"clean": 3}), "clean must be text, got 3"),
        (json.dumps(PAIR | {"answer": None}), "answer must be text, got None"),
        (json.dumps(PAIR | {"answer": ""}), "answer must not be empty"),
        (json.dumps(PAIR | {"cleann": "x"}), "unknown key 'cleann': did you mean 'clean'?"),
        ('{"clean": "x", "clean": "y"}', "'clean' is given twice"),
        (json.dumps(PAIR | {"clean": "\ud800"}), "half a character"),
        (json.dumps(PAIR | {"clean": "x", "distractor": None}), "needs a distractor"),
        (json.dumps(PAIR), "the same pair as on line 1"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    file = write(tmp_path, *GOOD, line)
    with pytest.raises(SpecificationError) as caught:
        read_prompt_file(file, readout="logit_diff")
    assert f"{file}:4: " in str(caught.value)
    assert complaint in str(caught.value)


def test_a_file_that_is_gone_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match="no such prompt file"):
        read_prompt_file(tmp_path / "gone.jsonl")
    with pytest.raises(SpecificationError, match="holds 0 prompt pairs, at least 2"):
        read_prompt_file(write(tmp_path, "", ""))


def test_several_mistakes_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError) as caught:
        read_prompt_file(write(tmp_path, "x", *GOOD, "y"))
    assert len(str(caught.value).split("\n")) == 2
