"""What the reference suite keeps of a comparison, and when a file of it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.studies.reference import comparing, measuring
from examples.studies.reference.plan import Plan, read_plan

NAME = "ioi, sft vs rl, seed 0"
PAIRING = {
    "task": "ioi",
    "pair": ["sft", "rl"],
    "seed": 0,
    "tuned": {"run": "sft@0.1-0", "step": 10},
    "reference": {"run": "rl@0.1-0", "step": 20},
}


def agreement(value: float, corrected: float | None) -> dict:
    return {
        "value": {"mean": value, "low": 0.0, "high": 1.0, "n": 9},
        "chance": 0.4,
        "corrected": None if corrected is None else {"mean": corrected},
        "overlaps": [],
    }


def slim(retention: dict | None) -> dict:
    column = {
        "role": "tuned", "able": True, "sizes": [3], "stability": None, "masks": [{"L0H1": 1.0}],
        "faithfulness": {"mean": 1.1}, "transfer": None, "paper_faithfulness": None,
        "retention": retention,
    }  # fmt: skip
    return comparing.slim(
        {
            "heads": 24, "ceiling": agreement(0.8, 0.75), "columns": [column],
            "vulnerable": {"members": ["L0H1"], "delta": 0.5, "drop": {}},
        }
    )  # fmt: skip


def test_retention_is_kept_with_what_it_reaches_of_the_ceiling() -> None:
    found = slim(
        {
            "retained": agreement(0.7, 0.5), "across": agreement(0.6, 0.3),
            "relative": 0.4, "abstained": None,
        }
    )  # fmt: skip
    assert found["columns"]["tuned"]["retention"] == {
        "value": 0.7, "chance": 0.4, "corrected": 0.5, "across": 0.3, "relative": 0.4,
        "abstained": None,
    }  # fmt: skip
    assert found["ceiling"]["corrected"] == 0.75
    assert found["columns"]["tuned"]["faithfulness"] == 1.1


def test_no_mask_is_kept() -> None:
    assert "masks" not in json.dumps(slim(None))


@pytest.mark.parametrize("across", [None, agreement(0.6, None)], ids=["none", "no chance"])
def test_what_is_not_defined_across_halves_is_kept_as_none(across: dict | None) -> None:
    found = slim(
        {
            "retained": agreement(0.7, None), "across": across,
            "relative": None, "abstained": "a circuit is empty",
        }
    )  # fmt: skip
    kept = found["columns"]["tuned"]["retention"]
    assert (kept["across"], kept["relative"]) == (None, None)
    assert kept["abstained"] == "a circuit is empty"


def test_a_model_without_a_circuit_keeps_no_retention() -> None:
    assert slim(None)["columns"]["tuned"]["retention"] is None


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan whose checkpoints are known by their names, with one comparison in its place."""
    monkeypatch.setattr(measuring, "key_of", lambda _, name: f"key of {name}")
    plan = read_plan("tiny", ["recipes=sft,rl", "compared=sft vs rl"], out=tmp_path)
    file = tmp_path / "comparisons" / "ioi-sftvsrl-seed0.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"key": comparing._key(plan, PAIRING), "heads": 24}))
    return plan


def test_a_file_of_this_very_comparison_counts(written: Plan) -> None:
    assert comparing.read(written, NAME, PAIRING) == {"heads": 24}


def test_a_file_of_other_checkpoints_or_of_another_task_does_not_count(written: Plan) -> None:
    later = {**PAIRING, "tuned": {"run": "sft@0.1-0", "step": 20}}
    for other in (later, {**PAIRING, "task": "induction"}):
        assert comparing.read(written, NAME, other) is None


def test_a_file_of_what_was_compared_before_does_not_count(
    written: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "VERSION", comparing.VERSION + 1)
    assert comparing.read(written, NAME, PAIRING) is None
