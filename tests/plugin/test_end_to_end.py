"""The gate as users run it: real checkpoints, in processes of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gate_process import run_gate

from forgetguard.checkpoints.spec import resolve

CIRCUITS = Path(__file__).parents[2] / "circuits"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A release engineer's folder: two circuit files and their prompts."""
    (tmp_path / "prompts").mkdir()
    for task in ("ioi", "induction"):
        shutil.copy(CIRCUITS / f"tiny-{task}.circuit.yaml", tmp_path)
        shutil.copy(CIRCUITS / "prompts" / f"tiny-{task}.jsonl", tmp_path / "prompts")
    return tmp_path


def verdicts(results: Path) -> dict[str, Any]:
    document = json.loads(results.read_text())
    assert document["complete"] is True
    found = [verdict for result in document["results"] for verdict in result["verdicts"]]
    return {f"{verdict['circuit']} {verdict['limit']}": verdict for verdict in found}


def test_a_damaged_checkpoint_fails_and_a_gentle_one_passes(project: Path) -> None:
    status, output = run_gate(
        project, "base=tiny:base", "tuned=tiny:sft", "--forgetguard-json", "sft.json"
    )
    assert status == 1, output
    assert "Traceback" not in output
    assert "worst heads" in output
    assert "prompt pairs hurt most" in output
    sft = verdicts(project / "sft.json")
    assert sft["tiny-induction dcv.circuit"]["outcome"] == "fail"
    assert sft["tiny-ioi dcv.circuit"]["outcome"] == "pass"

    status, output = run_gate(
        project, "base=tiny:base", "tuned=tiny:lora", "--forgetguard-json", "lora.json"
    )
    assert status == 0, output
    assert {verdict["outcome"] for verdict in verdicts(project / "lora.json").values()} == {"pass"}


def test_a_byte_copy_of_the_base_is_refused_unless_allowed(project: Path) -> None:
    copy = project / "copy"
    shutil.copytree(resolve("tiny:base", "base").location, copy)
    status, output = run_gate(project, "base=tiny:base", f"tuned={copy}")
    assert status == 4, output
    assert "Traceback" not in output
    assert "--forgetguard-allow-same" in output
    status, output = run_gate(
        project,
        "base=tiny:base",
        f"tuned={copy}",
        "--forgetguard-allow-same",
        "--forgetguard-json=same.json",
        "-k",
        "dcv",
    )
    assert status == 0, output
    for verdict in verdicts(project / "same.json").values():
        assert (verdict["estimate"]["value"], verdict["estimate"]["high"]) == (0.0, 0.0)


def test_a_base_that_cannot_do_the_capability_is_no_pass(project: Path) -> None:
    prompts = project / "prompts" / "tiny-ioi.jsonl"
    swapped = []
    for line in prompts.read_text().splitlines():
        pair = json.loads(line)
        swapped.append(pair | {"answer": pair["distractor"], "distractor": pair["answer"]})
    prompts.write_text("\n".join(json.dumps(pair) for pair in swapped))
    status, output = run_gate(project, "base=tiny:base", "tuned=tiny:sft", "-k", "ioi")
    assert status == 1, output
    assert "ABSTAIN: THE BASE CANNOT DO 'ioi'" in output
    assert "hurt most" not in output
