"""Tasks for lm-eval in the words of the tiny tokenizer: questions, and a folder of task files."""

from __future__ import annotations

import json
import logging
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from plain_tiny import plain_model, plain_tokenizer

from forgetguard.gate import bundled

CHOICE = """\
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: options
doc_to_target: "{{options.index(answer)}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
SAY = """\
task: tiny_say
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: question
doc_to_target: answer
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 1}
filter_list:
  - name: stripped
    filter: [{function: remove_whitespace}, {function: take_first}]
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
TOGETHER = CHOICE.replace("tiny_choice", "tiny_f1").replace("acc_norm, aggregation: mean", "f1")
BLEU = SAY.replace("tiny_say", "tiny_bleu").replace(
    "exact_match, aggregation: mean", "bleu, aggregation: bleu"
)
FAR = CHOICE.replace("tiny_choice", "tiny_far").replace("path: json", "path: nobody/has-it")
FAR = FAR.replace("dataset_kwargs: {data_files: {test: rows.jsonl}}\n", "")


def rows() -> list[dict[str, Any]]:
    """Questions with options and answers, of two bundled capabilities, each once."""
    found = {}
    for name in ("induction", "fact_recall"):
        for line in bundled_prompts(name).read_text("utf-8").splitlines():
            pair = json.loads(line)
            answer, other = pair["answer"].strip(), pair["distractor"].strip()
            options = sorted((answer, other))
            row = {"question": pair["clean"], "options": options, "answer": answer}
            found.setdefault(pair["clean"], row)
    return list(found.values())


def bundled_prompts(name: str) -> Path:
    """The bundled prompt file of a capability of the tiny family."""
    return Path(bundled.__file__).parents[2] / "circuits" / "prompts" / f"tiny-{name}.jsonl"


def write_tasks(folder: Path, count: int | None = None) -> Path:
    """`rows.jsonl` and the task files above in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [json.dumps(row) for row in rows()[:count]]
    (folder / "rows.jsonl").write_text("\n".join(written) + "\n", "utf-8")
    for name, text in zip(
        ("choice", "say", "f1", "bleu", "far"), (CHOICE, SAY, TOGETHER, BLEU, FAR), strict=True
    ):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return folder


def lm_eval_alone(
    tasks: list[str], folder: Path, name: str, monkeypatch: Any, **given: Any
) -> dict[str, Any]:
    """lm-eval's own results on tiny:NAME, by its front door, run where its data files lie."""
    monkeypatch.chdir(folder)
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        found: dict[str, Any] = simple_evaluate(
            model=HFLM(pretrained=plain_model(name), tokenizer=plain_tokenizer(), batch_size=1),
            tasks=tasks,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            **{"bootstrap_iters": 0} | given,
        )
    return found
