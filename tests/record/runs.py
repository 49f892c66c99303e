"""The runs of the gate on the tiny checkpoints that are on record, and how each is made again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gate_process import run_gate
from record.reading import read_run

ROOT = Path(__file__).parents[2]
CIRCUITS = ROOT / "circuits"
BASE = ROOT / "forgetguard" / "checkpoints" / "tiny" / "base"
TINY = Path(__file__).with_name("tiny.json.xz")

EVERY_LIMIT = """\
  dcv.circuit: {max: 0.1}
  dcv.all: {max: 0.3}
  dcv.head: {max: 0.25}
  accuracy.drop: {max: 0.1}
  readout.drop: {max: 0.2}
  dcv.circuit.over_reference: {max: 0.1}
  dcv.head.over_reference: {max: 0.25, floor: 0.05}
  dcv.circuit.over_baseline: {max: 0.05}
  dcv.head.over_baseline: {max: 0.1}
  accuracy.drop.over_baseline: {max: 0.05}
"""
# What the bundled files do not use: pairs drawn look by look, the other site, the other readout,
# MLP layers, a floor of 0, a head of negative importance, too few pairs to decide.
VARIANTS = {
    "drawn": """\
forgetguard: 1
capability: ioi
pairs: {file: prompts/tiny-ioi.jsonl, count: 16, most: 64}
readout: logit_diff
circuit: [L0H4, L1H4, L2H2, L0H3]
limits: {dcv.circuit: {max: 0.1}, dcv.head: {max: 0.25}, accuracy.drop: {max: 0.2}}
""",
    "other-site": """\
forgetguard: 1
capability: key_value
pairs: {file: prompts/tiny-key_value.jsonl, count: 32}
readout: logprob
site: z
confidence: 0.9
circuit: [L2H2, L2H1, L3H3, L1H4]
limits: {dcv.circuit: {max: 0.1}, dcv.head: {max: 0.25, floor: 0}, readout.drop: {max: 0.1}}
""",
    "with-layers": """\
forgetguard: 1
capability: induction
pairs: {task: induction, count: 48, seed: 3}
readout: logit_diff
circuit: [L0MLP, L1H4, L2H2, L2MLP, L3H5, L3H0]
limits: {dcv.circuit: {max: 0.2}, dcv.head: {max: 0.25}, dcv.all: {max: 0.5}}
""",
    "few-pairs": """\
forgetguard: 1
capability: fact_recall
pairs: {file: prompts/tiny-fact_recall.jsonl, count: 8}
readout: logit_diff
circuit: [L0H3, L3H1]
limits: {dcv.circuit: {max: 0.1}, dcv.head: {max: 0.25}, accuracy.drop: {max: 0.1}}
""",
}


@dataclass(frozen=True)
class Run:
    """One run of the gate. `files`: circuit files by name, beside a copy of the bundled prompts;
    without any the bundled circuits are run. `accepted`: the checkpoint of the baseline."""

    tuned: str
    reference: str = ""
    base: str = "tiny:base"
    options: tuple[str, ...] = ()
    files: Mapping[str, str] | None = None
    accepted: str = ""


def every_limit() -> dict[str, str]:
    """The bundled circuits with every kind of limit there is."""
    texts = {}
    for file in sorted(CIRCUITS.glob("tiny-*.circuit.yaml")):
        if "over-reference" not in file.name:
            text = file.read_text("utf-8")
            kept = re.sub(r"(?ms)^limits:\n.*", f"limits:\n{EVERY_LIMIT}", text)
            texts[file.name.removesuffix(".circuit.yaml")] = kept
    return texts


def tiny_runs() -> dict[str, Run]:
    """Every run on record, by name."""
    return {
        "sft": Run("tiny:sft"),
        "sft over rl": Run("tiny:sft", "tiny:rl"),
        "rl": Run("tiny:rl"),
        "rl over sft": Run("tiny:rl", "tiny:sft"),
        "lora": Run("tiny:lora"),
        "lora over rl": Run("tiny:lora", "tiny:rl"),
        "sft with controls": Run("tiny:sft", options=("--forgetguard-controls=4",)),
        "sft, every limit": Run("tiny:sft", "tiny:rl", files=every_limit(), accepted="tiny:lora"),
        "sft, variants": Run("tiny:sft", files=VARIANTS),
    }


def perform(run: Run, folder: Path) -> dict[str, Any]:
    """Run the gate in the empty `folder`, one thread, and read what it found.

    Returns:
        {"exit_status": int, "circuits": what `read_run` returns}

    Raises:
        RuntimeError: the gate did not judge every limit.
    """
    if run.files is not None:
        shutil.copytree(CIRCUITS / "prompts", folder / "prompts")
        for name, text in run.files.items():
            (folder / f"{name}.circuit.yaml").write_text(text)
    report = folder / "results.json"
    arguments = [*run.options, *(["."] if run.files is not None else [])]
    if run.accepted:
        arguments.append("--forgetguard-baseline=accepted.json")
        _gate(run.base, run.accepted, run.reference, [*arguments, "--forgetguard-update"], folder)
    said = _gate(
        run.base, run.tuned, run.reference, [*arguments, f"--forgetguard-json={report}"], folder
    )
    results = json.loads(report.read_text()) if report.exists() else {}
    if not results.get("complete"):
        raise RuntimeError(f"the gate did not judge every limit:\n{said[-4000:]}")
    return {"exit_status": results["exit_status"], "circuits": read_run(report)}


def _gate(base: str, tuned: str, reference: str, arguments: Sequence[str], folder: Path) -> str:
    pairs = [f"base={base}", f"tuned={tuned}", *([f"reference={reference}"] if reference else [])]
    return run_gate(folder, *pairs, "-q", *arguments)[1]
