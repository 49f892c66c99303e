"""lm-eval in the gate on a real model and a LoRA: SciKnowEval's multiple choice and a generation
task. FORGETGUARD_SCIKNOWEVAL=FOLDER takes the rows of that benchmark's files; without it they are
ours, in its layout."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetguard.capabilities.capability import Capability
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate.schema import load_gate_file
from forgetguard.gate.session import GateSession
from forgetguard.gate.verdict import Code, Outcome, Verdict
from forgetguard.measures.documents import SCORE
from forgetguard.measures.samples import BASE, TUNED, Samples

pytestmark = pytest.mark.slow
COUNT = 24
SHARED = "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
CHOICE = f"""\
task: sciknoweval
{SHARED}output_type: multiple_choice
doc_to_text: "{{{{prompt.default}}}}\\n{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices.text}}}}"
doc_to_target: "{{{{choices.label.index(answerKey)}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
SAY = f"""\
task: sciknoweval_said
{SHARED}output_type: generate_until
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{choices.text[choices.label.index(answerKey)]}}}}"
generation_kwargs: {{until: ["\\n", "."], do_sample: false, max_gen_toks: 4}}
filter_list:
  - name: stripped
    filter: [{{function: remove_whitespace}}, {{function: take_first}}]
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
TASKS = ("sciknoweval", "sciknoweval_said")
SUBJECTS = ("sciknoweval acc", "sciknoweval acc_norm", "sciknoweval_said exact_match stripped")


def rows(base: Path) -> list[dict[str, Any]]:
    folder = os.environ.get("FORGETGUARD_SCIKNOWEVAL")
    if folder:
        lines = [
            json.loads(line)
            for file in sorted(Path(folder).glob("*.jsonl"))
            for line in file.read_text("utf-8").splitlines()
        ]
        chosen = [row for row in lines if row["type"] == "mcq-4-choices"]
        return sorted(chosen, key=lambda row: len(json.dumps(row)))[:COUNT]
    from transformers import AutoTokenizer

    asked = Capability("fact_recall", "logit_diff", task="fact_recall", count=COUNT, seed=5)
    found = []
    for one in asked.encoded(AutoTokenizer.from_pretrained(base)).encoded.pairs:
        options = sorted((one.pair.answer.strip(), one.pair.distractor.strip()))
        found.append(
            {
                "prompt": {"default": "Complete the sentence."},
                "question": one.pair.clean,
                "type": "mcq-2-choices",
                "choices": {"text": options, "label": ["A", "B"]},
                "answerKey": "AB"[options.index(one.pair.answer.strip())],
            }
        )
    return found


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tasks")
    given = "\n".join(map(json.dumps, rows(base))) + "\n"
    (where / "rows.jsonl").write_text(given, "utf-8")
    (where / "choice.yaml").write_text(CHOICE, "utf-8")
    (where / "say.yaml").write_text(SAY, "utf-8")
    (where / "a.gate.yaml").write_text(
        f"forgetguard: 2\nlm_eval: {{tasks: [{', '.join(TASKS)}], include: .}}\n"
        "limits:\n  lm_eval.drop: {max: 0.05}\n  lm_eval.flips: {max: 0.10}\n",
        "utf-8",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(where / "cache"))
        yield where


def lm_eval_alone(folder: Path, base: Path, adapter: Path | None) -> dict[str, Any]:
    """What lm-eval reports, with the model loaded by itself from its folder."""
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), redirect_stderr(StringIO()), pytest.MonkeyPatch.context() as at:
        warnings.simplefilter("ignore")
        at.chdir(folder)
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        model = HFLM(
            pretrained=str(base),
            peft=None if adapter is None else str(adapter),
            dtype="float32",
            device="cpu",
            batch_size=1,
        )
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found: dict[str, Any] = simple_evaluate(
            model=model, tasks=[*TASKS], task_manager=manager, bootstrap_iters=0
        )["results"]
    return found


def gated(folder: Path, base: Path, tuned: Path) -> tuple[dict[str, Verdict], Samples]:
    spec = load_gate_file(folder / "a.gate.yaml")
    roles = {"base": base, "tuned": tuned}
    with ModelPair({role: resolve(str(path), role) for role, path in roles.items()}) as pair:
        session = GateSession(pair, [spec])
        return {one.key: session.judge(spec, one) for one in spec.limits}, session.measurement(spec)


def test_the_numbers_on_base_and_lora_are_lm_evals_own(
    base: Path, folder: Path, copied: Callable[[str], Path]
) -> None:
    verdicts, samples = gated(folder, base, copied("lora"))
    alone = {BASE: lm_eval_alone(folder, base, None)}
    alone[TUNED] = lm_eval_alone(folder, base, copied("lora"))
    for subject in SUBJECTS:
        task, metric, *named = subject.split(" ")
        means = {}
        for role, theirs in alone.items():
            own = [one.clean.startswith(f"{task} #") for one in samples.units]
            scored = samples.need(SCORE, subject, role)[np.array(own)]
            assert len(scored) == COUNT
            means[role] = theirs[task][f"{metric},{(named or ['none'])[0]}"]
            assert scored.mean() == pytest.approx(means[role], abs=1e-12)
        drop = {one.subject: one.value.value for one in verdicts["lm_eval.drop"].subjects}
        assert drop[subject] == pytest.approx(means[BASE] - means[TUNED], abs=1e-12)


def test_a_byte_copy_reads_exactly_0(
    base: Path, folder: Path, copied: Callable[[str], Path]
) -> None:
    verdicts, samples = gated(folder, base, copied("byte copy"))
    for verdict in verdicts.values():
        assert verdict.outcome is not Outcome.FAIL
        assert verdict.code is not Code.BEYOND
        for subject in SUBJECTS:
            assert not samples.need(verdict.limit, subject, TUNED).any()
