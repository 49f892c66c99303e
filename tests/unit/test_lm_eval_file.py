"""A results file's scores in lm-eval's own form are what lm-eval itself writes of that model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_tasks import lm_eval_alone, write_tasks

from forgetguard.report.lm_eval_file import lm_eval_results

pytestmark = pytest.mark.slow
TASKS = ["tiny_choice", "tiny_say"]


def results_of(units: list[Any], scores: Any) -> Any:
    measured = {"units": units, "arrays": {"lm_eval.score": scores}}
    return {
        "options": {"base": "tiny:base", "tuned": "tiny:sft"},
        "versions": {"forgetguard": "0"},
        "started": "",
        "circuits": [{"measured": measured}, {"measured": {"units": [], "arrays": {}}}],
    }


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
