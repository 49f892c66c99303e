"""A prompt file's mistakes are told with their lines, all of them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from forgetguard.errors import SpecificationError
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.gate.yaml_lines import MOST_SHOWN

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


def test_a_pair_may_say_its_classes(tmp_path: Path) -> None:
    given = {"order": "abba", "answer": "names"}
    lines = [
        json.dumps(PAIR | {"classes": given}),
        json.dumps(PAIR | {"clean": "x", "classes": None}),
    ]
    assert [pair.classes for pair in read_prompt_file(write(tmp_path, *lines))] == [given, {}]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'clean': 1}", "not JSON"),
        ("[1, 2]", "a line must be a JSON object"),
        ('{"clean": "x"}', "'answer' is missing"),
        (json.dumps(PAIR | {"clean": 3}), "clean must be text, got 3"),
        (json.dumps(PAIR | {"answer": None}), "answer must be text, got nothing"),
        (json.dumps(PAIR | {"answer": ""}), "answer must not be empty"),
        (json.dumps(PAIR | {"cleann": "x"}), "unknown key 'cleann': did you mean 'clean'?"),
        ('{"clean": "x", "clean": "y"}', "'clean' is given twice"),
        (json.dumps(PAIR | {"clean": "\ud800"}), "half a character"),
        (json.dumps(PAIR | {"clean": "x", "distractor": None}), "needs a distractor"),
        (json.dumps(PAIR), "the same pair as on line 1"),
        ("[" * 100_000, "not JSON"),
        (json.dumps(PAIR | {"classes": "abba"}), "classes must be a mapping of texts"),
        (json.dumps(PAIR | {"classes": {"order": 3}}), "classes: order must be text, got 3"),
        (json.dumps(PAIR | {"classes": {"order": ""}}), "classes: order must not be empty"),
        (json.dumps(PAIR | {"classes": {"": "x"}}), "classes: a class must have a name"),
        (json.dumps(PAIR | {"clean": "x"})[:-1] + ', "classes": {"a": "b", "a": "c"}}', "twice"),
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


def test_a_pair_may_have_further_answers(tmp_path: Path) -> None:
    entry = PAIR | {"answers": [" d", " e"], "distractors": [" f"]}
    pairs = read_prompt_file(write(tmp_path, GOOD[0], json.dumps(entry)), readout="log_odds")
    assert [pair.answers for pair in pairs] == [(), (" d", " e")]
    assert [pair.distractors for pair in pairs] == [(), (" f",)]


@pytest.mark.parametrize(
    ("further", "complaint"),
    [
        ({"answers": " d"}, "answers must be a list of texts, got ' d'"),
        ({"answers": [" d", 3]}, "answers: each must be text, got 3"),
        ({"answers": [""]}, "answers: each must not be empty"),
        ({"answers": [" d"], "distractors": [" d"]}, "' d' stands twice"),
        ({"answers": [" b"]}, "' b' stands twice"),
        (
            {"distractor": None, "distractors": [" d"]},
            "distractors are further ones: give the first",
        ),
    ],
)
def test_a_bad_further_answer_is_told_with_its_line(tmp_path, further, complaint) -> None:
    with pytest.raises(SpecificationError) as caught:
        read_prompt_file(write(tmp_path, *GOOD, json.dumps(PAIR | {"clean": "z"} | further)))
    assert f"p.jsonl:4: {complaint}" in str(caught.value)


def test_of_many_mistakes_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError) as caught:
        read_prompt_file(write(tmp_path, *["x"] * 10_016))
    told = str(caught.value).split("\n")
    assert len(told) == MOST_SHOWN + 1
    assert told[0].startswith(f"{tmp_path / 'p.jsonl'}:1: not JSON")
    assert "9,996 more, 10,016 on 10,016 lines" in told[-1]


def test_a_file_of_equal_lines_is_read_in_time_that_grows_with_it(tmp_path: Path) -> None:
    """100,000 equal lines took long: each mistake was compared with all others."""
    taken = {}
    for count in (2_000, 16_000):
        file = write(tmp_path, *[GOOD[0]] * count)
        times = []
        for _ in range(3):  # the quickest: a busy machine slows down some
            start = time.process_time()
            with pytest.raises(SpecificationError, match=f"{count - MOST_SHOWN - 1:,} more"):
                read_prompt_file(file)
            times.append(time.process_time() - start)
        taken[count] = min(times)
    assert taken[16_000] < 30 * taken[2_000]  # 64 times where it grows with the square
