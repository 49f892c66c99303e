"""Measures of other distributions: gated from YAML, and one line each where they are bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gate_process import run_gate
from plain_tiny import logits_after
from warm_python import warm_python

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_measure"

# Every way to be bad, and the good limits that are judged all the same.
BAD = """
import numpy as np
from forgetguard.measures.measure import NATS, Estimator, Measure, Sampled

def made(key, compare, read=lambda model: None):
    return Measure(key, "bad", NATS, Sampled.PROMPTS, read=read, compare=compare)

def fails(*_):
    raise IndexError("the one\\nand the other")

raises = made("bad.raises", fails)
reads = made("bad.reads", lambda base, kept: {}, read=fails)
nan = made("bad.nan", lambda base, kept: {"": np.full(len(base.passages), np.nan)})
shape = made("bad.shape", lambda base, kept: {"": np.zeros(3)})
words = made("bad.words", lambda base, kept: {"": ["a"] * len(base.passages)})
nothing = made("bad.nothing", lambda base, kept: {})
named = made("bad.otherwise", lambda base, kept: {})
disk = Measure(
    "bad.disk", "bad", NATS, Sampled.NOTHING, estimator=Estimator.EXACT,
    on_disk=lambda base, other, options: {"": float("nan")},
)
text = "no measure"
taken = made("kl.reverse", lambda base, kept: {"": np.zeros(len(base.passages))})
"""
ENTRIES = """[forgetguard.measures]
bad.raises = bad_measures:raises
bad.reads = bad_measures:reads
bad.nan = bad_measures:nan
bad.shape = bad_measures:shape
bad.words = bad_measures:words
bad.nothing = bad_measures:nothing
bad.named = bad_measures:named
bad.text = bad_measures:text
bad.disk = bad_measures:disk
bad.import = no_such_module:anything
kl.reverse = bad_measures:taken
"""
TOLD = {
    "bad.raises": "IndexError: the one",
    "bad.reads": "IndexError: the one",
    "bad.nan": "not finite",
    "bad.shape": "shape (3,)",
    "bad.words": "no numbers",
    "bad.nothing": "returned nothing",
    "bad.named": "'bad.otherwise'",
    "bad.text": "'no measure'",
    "bad.disk": "not finite",
    "bad.import": "no_such_module",
    "kl.reverse": "forgetguard and by bad-measures",
}


def judged(folder: Path, gate: Path, site: Path) -> tuple[int, dict[str, Any], str]:
    report = folder / "results.json"
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    given = ("base=tiny:base", "tuned=tiny:sft", str(gate), f"--forgetguard-json={report}")
    status, output = run_gate(folder, *given, environment={"PYTHONPATH": paths})
    return status, json.loads(report.read_text()) if report.exists() else {}, output


@pytest.mark.slow
def test_a_measure_of_another_distribution_is_installed_gated_and_verified(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    copied = tmp_path / "source"
    subprocess.run(["cp", "-r", str(EXAMPLE), str(copied)], check=True)
    subprocess.run(
        [*install, "--no-build-isolation", "--target", str(site), str(copied)], check=True
    )
    status, results, said = judged(tmp_path, EXAMPLE / "entropy.gate.yaml", site)
    (circuit,) = results["circuits"]
    texts = [unit[0] for unit in circuit["measured"]["units"]]
    expected = []
    for text in texts:
        base, tuned = (logits_after(name, text).double().softmax(-1) for name in ("base", "sft"))
        entropies = [-(p * p.clamp_min(1e-300).log()).sum() for p in (base, tuned)]
        expected.append(float(entropies[1] - entropies[0]))
    found = circuit["measured"]["arrays"]["entropy.rise"]["tuned"][""]
    assert found == pytest.approx(expected, abs=1e-4)
    (gate,) = results["results"]
    (verdict,) = gate["verdicts"]
    assert verdict["estimate"]["value"] == pytest.approx(sum(found) / len(found))
    assert {"pass": 0, "fail": 1, "abstain": 1}[gate["outcome"]] == status, said
    confirmed = subprocess.run(
        [warm_python(), "-m", "forgetguard", "verify", str(tmp_path / "results.json")],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert confirmed.returncode == 0, confirmed.stdout + confirmed.stderr


def test_a_bad_measure_is_one_line_and_the_others_are_judged(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "bad_measures-0.1.dist-info").mkdir(parents=True)
    (site / "bad_measures.py").write_text(BAD)
    info = site / "bad_measures-0.1.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-measures\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    prompts = (EXAMPLE / "entropy.gate.yaml").read_text().partition("limits:")[0]
    bad = "".join(f"  {key}: {{max: 0.5}}\n" for key in TOLD)
    gate = tmp_path / "bad.gate.yaml"
    gate.write_text(
        f"{prompts}limits:\n  kl.forward: {{max: 50}}\n{bad}  drift.weights: {{max: 0.5}}\n"
    )
    status, results, said = judged(tmp_path, gate, site)
    assert status == 1, said
    outcomes = {one["id"].rpartition("::")[2]: one for one in results["results"]}
    assert outcomes["kl.forward"]["outcome"] == "pass", said
    assert outcomes["drift.weights"]["outcome"] == "pass"
    for key, told in TOLD.items():
        assert outcomes[key]["outcome"] == "error", key
        assert told in outcomes[key]["message"], key
        assert "\n" not in outcomes[key]["message"]
    assert "Traceback" not in said
