"""Results files of made-up verdicts, and texts that would be markup somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forgetguard.anatomy.members import Member
from forgetguard.gate import records
from forgetguard.gate.checksum import digest
from forgetguard.gate.declaration import GateSpec, Limit, TaskPairs
from forgetguard.gate.verdict import Code, Estimate, Outcome, SubjectEvidence, UnitEvidence, Verdict
from forgetguard.measures.samples import Note
from forgetguard.report import json_file

HOSTILE = (
    "</td></table><script>alert(1)</script>",
    "\"' onmouseover=alert(1) x='",
    "<img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "safe\u202ecod.exe\u2066",
    "nul\x00bell\x07esc\x1b[31m\x85\u2028",
    "w" * 5000,
    "\U0001f469\U0001f3fd cafe\u0301 \u05e9\u05dc\u05d5\u05dd",
    "]]><!-- & &amp; &lt;script&gt;",
    "\udc80 lone",
)
CODES = {"pass": Code.WITHIN, "fail": Code.BEYOND, "abstain": Code.UNDECIDED}
FACTS = {"corrected_low": 0.3, "wanted": 200}
LIMITS = ("dcv.circuit", "dcv.head", "readout.drop", "accuracy.drop")


def estimate(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, value - half, value + half, 0.9, 64)


def verdict(
    outcome: str, circuit: str, limit: str, heads: tuple[Member, ...], **more: Any
) -> Verdict:
    value = {"pass": 0.02, "fail": 0.5, "abstain": 0.11}[outcome]
    facts = FACTS | ({"before": 0.9, "now": 0.8, "lost": 7, "won": 1} if "acc" in limit else {})
    given: dict[str, Any] = {
        "facts": facts,
        "subjects": tuple(
            SubjectEvidence(str(head), estimate(value), estimate(2.0), estimate(0.01))
            for head in heads
        ),
        "units": (UnitEvidence("clean x", 3.0, "x'", " y", " n", 4.0, 1.5, 1.0, " y", " n"),) * 5,
        "notes": (Note("fixed_prompts", {"kind": "task", "can_be_drawn": True}),),
    }
    return Verdict(
        circuit, "ioi", limit, 0.1, Outcome(outcome), estimate(value), CODES[outcome],
        file="/nowhere/a.circuit.yaml", line=7, detectable=0.2, **given | more,
    )  # fmt: skip


def document(
    *verdicts: Verdict, heads: tuple[Member, ...] = (), tuned: str = "t", **more: Any
) -> dict[str, Any]:
    """A results file as the plugin writes it, of these verdicts."""
    results, circuits = [], {}
    for one in verdicts:
        path = Path("/nowhere/a.circuit.yaml")
        spec = GateSpec(
            one.circuit, "ioi", TaskPairs("ioi", 64), "logit_diff", heads, (Limit(one.limit, 0.1),),
            path=path,
        )  # fmt: skip
        declared = records.spec_to_dict(spec)
        circuits.setdefault(one.circuit, {
            "name": one.circuit, "digest": digest(declared), "declared": declared,
            "environment": {"device": "cpu"}, "measured": None,
        })  # fmt: skip
        results.append({
            "id": f"{one.circuit}.circuit.yaml::{one.circuit}::{one.limit}",
            "outcome": one.outcome.value, "message": "", "attempts": [],
            "verdicts": [records.verdict_to_dict(one)],
        })  # fmt: skip
    passed = all(one["outcome"] == "pass" for one in results)
    options = {
        "base": "b", "tuned": tuned, "reference": None, "circuits": [], "device": None,
        "dtype": "float32", "json": "out.json", "html": None, "seed": 0, "family": None,
        "prompt_seed": None, "controls": 0, "allow_same": False, "allow_abstain": False,
    }  # fmt: skip
    return json_file.complete({
        "complete": True, "exit_status": 0 if passed else 1, "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.5, "options": options, "seed": 0,
        "selection": {"arguments": ["gates"], "keyword": "", "by_name": False},
        "versions": {"forgetguard": "0.1.0"},
        "fingerprints": {"base": {"weights": "b" * 64}, "tuned": {"weights": tuned * 64}},
        "notes": [], "errors": [], "results": results, "circuits": list(circuits.values()),
        "not_run": [], "allowed_to_abstain": [], "not_had": [], "ungated": [], "deselected": [],
        **more,
    })  # fmt: skip
