"""One's own questions through lm-eval from the command line: recorded, gated, confirmed, measured
again and calibrated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eval_tasks import rows
from gate_process import run_gate

from forgetguard.cli import main

GATE = """\
forgetguard: 2
lm_eval: {questions: mine.jsonl, limit: 40, seed: 1}
limits:
  lm_eval.drop: {max: 0.40}
  lm_eval.flips.over_baseline: {max: 0.10}
"""


def run(folder: Path, *arguments: str) -> str:
    return run_gate(folder, "base=tiny:base", *arguments)[1]


@pytest.mark.slow
def test_a_file_of_questions_goes_the_way_of_every_gate_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows())), "utf-8")
    (tmp_path / "behaviour.gate.yaml").write_text(GATE, "utf-8")
    accepted = ("tuned=tiny:sft", "--forgetguard-baseline=accepted.json")
    assert "1 pass, 1 recorded" in run(tmp_path, *accepted, "--forgetguard-update")
    assert "2 pass" in run(tmp_path, *accepted, "--forgetguard-json=run.json")
    results = tmp_path / "run.json"
    assert main(["verify", str(results)]) == 0
    assert main(["report", str(results), "--lm-eval", str(tmp_path)]) == 0
    means = {
        role: json.loads((tmp_path / f"results_{role}.json").read_text())["results"]["mine"]
        for role in ("base", "tuned")
    }
    (drop,) = [
        one["estimate"]["value"]
        for result in json.loads(results.read_text())["results"]
        for one in result["verdicts"]
        if one["limit"] == "lm_eval.drop"
    ]
    assert means["base"]["acc,none"] - means["tuned"]["acc,none"] == pytest.approx(drop, abs=1e-12)
    # All documents are measured again: lm-eval makes the prompts of its tasks itself.
    assert main(["verify", str(results), "--recompute", "8"]) == 0
    assert "40 of 40 prompts, the same" in capsys.readouterr().out
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows()[1:])), "utf-8")
    assert main(["verify", str(results), "--recompute", "8"]) != 0
    assert "other documents than those of the file" in capsys.readouterr().err
    assert main(["calibrate", "base=tiny:base", str(tmp_path / "behaviour.gate.yaml")]) == 0
    assert "lm_eval.drop" in capsys.readouterr().out


@pytest.mark.slow
def test_a_name_that_lm_eval_does_not_know_is_a_wrong_file_as_any_other(tmp_path: Path) -> None:
    given = "tasks: [arc_esay], metrics: [acc_nrom]"
    text = GATE.replace("questions: mine.jsonl, limit: 40, seed: 1", given)
    (tmp_path / "behaviour.gate.yaml").write_text(text, "utf-8")
    status, told = run_gate(tmp_path, "base=tiny:base", "tuned=tiny:sft", "behaviour.gate.yaml",
                            "--forgetguard-baseline=b.json", "--forgetguard-update")  # fmt: skip
    assert status == 4
    for wrong in ("task 'arc_esay': did you mean 'arc_easy'", "metric 'acc_nrom'"):
        assert f"behaviour.gate.yaml:2: lm_eval: lm-eval knows no {wrong}" in told
