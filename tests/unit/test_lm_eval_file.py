"""A results file's scores in lm-eval's own form are what lm-eval itself writes of that model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from eval_tasks import lm_eval_alone, write_tasks

from forgetguard.cli import main
from forgetguard.errors import SpecificationError
from forgetguard.report.lm_eval_file import card_entries, lm_eval_results

TASKS = ["tiny_choice", "tiny_say"]


def results_of(units: list[Any], scores: Any) -> Any:
    measured = {"units": units, "arrays": {"lm_eval.score": scores}}
    return {
        "options": {"base": "tiny:base", "tuned": "tiny:sft"},
        "versions": {"forgetguard": "0"},
        "started": "",
        "circuits": [{"measured": measured}, {"measured": {"units": [], "arrays": {}}}],
    }


@pytest.mark.slow
def test_means_errors_and_counts_are_those_that_lm_eval_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.utils import make_table

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_tasks(tmp_path / "given", 24)
    theirs = lm_eval_alone(TASKS, folder, "sft", monkeypatch, bootstrap_iters=100)
    rows = theirs["samples"]
    places = [(task, row["doc_id"]) for task in TASKS for row in rows[task]]
    units = [[f"{task} #{place} (00000000): x", "", ""] for task, place in places]

    def scored(task: str, metric: str) -> list[float]:
        by_place = {(task, row["doc_id"]): row[metric] for row in rows[task]}
        return [float(by_place.get(one, 0.0)) for one in places]

    tuned = {
        "tiny_choice acc": scored("tiny_choice", "acc"),
        "tiny_choice 1-acc_norm": (1 - np.array(scored("tiny_choice", "acc_norm"))).tolist(),
        "tiny_say exact_match stripped": scored("tiny_say", "exact_match"),
    }
    found = lm_eval_results(results_of(units, {"tuned": tuned}))
    assert found.keys() == {"tuned"}
    ours = found["tuned"]
    for task in TASKS:
        for key, value in ours["results"][task].items():
            if key != "alias":
                assert value == pytest.approx(theirs["results"][task][key], abs=1e-12), key
        assert ours["results"][task].keys() <= theirs["results"][task].keys()
        assert ours["n-samples"][task]["effective"] == 24
    assert ours["higher_is_better"]["tiny_choice"] == {"acc": True, "acc_norm": False}
    assert "tiny_choice" in make_table(ours)


def test_an_entry_of_a_card_is_what_the_hub_reads_back() -> None:
    from huggingface_hub import parse_eval_result_entries

    units = [[f"arc #{place} (00000000): x", "", ""] for place in range(4)]
    scores = {"tuned": {"arc acc": [1.0, 0.0, 1.0, 1.0], "arc acc_norm": [0.0] * 4}}
    document = results_of(units, scores) | {"started": "2026-01-02T03:04:05+00:00"}
    written = card_entries(document, {"arc": ("allenai/ai2_arc", "ARC-Easy")})
    (entry,) = parse_eval_result_entries(yaml.safe_load(yaml.safe_dump(written)))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("allenai/ai2_arc", "ARC-Easy", 0.75)
    assert entry.date == document["started"]
    assert entry.notes is not None
    assert entry.notes.startswith("acc, 4 documents")
    with pytest.raises(SpecificationError, match="other"):
        card_entries(document, {"other": ("a", "b")})


@pytest.mark.parametrize(
    "wrong",
    [
        ("--eval-results", "a.yaml"),
        ("-o", "page.html", "--hub-task", "arc=a:b"),
        ("--eval-results", "a.yaml", "--hub-task", "arc=a"),
    ],
)
def test_a_score_for_the_hub_needs_to_be_told_what_it_is_there(
    wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "forgetguard.json", *wrong]) == 2
    assert "--hub-task" in capsys.readouterr().err
