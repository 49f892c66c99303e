"""`forgetguard report RESULTS... -o page.html`: results files as one page for people to read."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from forgetguard.cli.command import DONE, Job, adder, command, whole_imports
from forgetguard.errors import SpecificationError
from forgetguard.gate.yaml_lines import read_text
from forgetguard.report.json_file import check_target
from forgetguard.report.lm_eval_file import card_entries, lm_eval_results
from forgetguard.whole_files import write_result

if TYPE_CHECKING:
    from forgetguard.report.page import Run

_FILES = ("output", "markdown", "model_card", "code_quality", "lm_eval", "eval_results")
_FORM = "forgetguard report forgetguard.json -o forgetguard.html"


def _options(parser: ArgumentParser) -> None:
    parser.usage = "forgetguard report RESULTS... [-o PAGE] [--markdown FILE] [...]"
    parser.description = (
        f"{parser.description} Of several files, of one base and each of another checkpoint, the "
        "page is about the last, with the trend over all of them."
    )
    add = adder(parser)
    results = "files that pytest --forgetguard-json wrote, in the order of training"
    add("tokens", "RESULTS", results, nargs="*")
    add("-o --output", "PAGE", "the HTML file to write")
    add("--markdown", "FILE", "write the last run as Markdown")
    section = "write the same into a model card: in place of the section it wrote before, or at the"
    add("--model-card", "README.md", f"{section} end")
    quality = "write what the last run does not keep as GitLab's code quality report"
    add("--code-quality", "FILE", quality)
    scores = "write the last run's scores of lm-eval tasks as results_base.json, ... of lm-eval"
    add("--lm-eval", "FOLDER", scores)
    tuned = "write tuned's scores for the .eval_results folder of its repository on the Hub"
    add("--eval-results", "FILE.yaml", tuned)
    task = "what an lm-eval task is there: arc_easy=allenai/ai2_arc:ARC-Easy"
    add("--hub-task", "TASK=DATASET:NAME", task, many=True)


def _prepare(asked: Namespace) -> Job:
    """Check what was asked for.

    Raises:
        SpecificationError: no results file, or nothing to write, is named, or it cannot be written.
    """
    results = [Path(one) for one in asked.tokens]
    if "" in (getattr(asked, name) for name in _FILES):
        raise SpecificationError(f"a report's path is empty (an unset variable?): {_FORM}")
    files = {name: Path(given) for name in _FILES if (given := getattr(asked, name))}
    targets = [
        path / "results_base.json" if name == "lm_eval" else path for name, path in files.items()
    ]
    if not results or not files:
        missing = "the page to write" if results else "the results file"
        raise SpecificationError(f"give {missing}: {_FORM}")
    hub = dict(map(_hub_task, asked.hub_task))
    if bool(hub) != ("eval_results" in files):
        raise SpecificationError("--eval-results FILE and --hub-task TASK=DATASET:NAME go together")
    if "lm_eval" in files:
        with suppress(OSError):  # what cannot be made is told below
            files["lm_eval"].mkdir(exist_ok=True)
    for target in targets:
        if target.resolve() in [one.resolve() for one in results]:
            raise SpecificationError(
                f"{target} is one of the results files, which would be lost: name another path"
            )
        if target.suffix in (".yaml", ".yml", ".json") and target == files.get("model_card"):
            raise SpecificationError(f"--model-card {target} is no model card: name a README.md")
        check_target(target, "the report")
    if len({target.resolve() for target in targets}) < len(targets):
        raise SpecificationError("two reports have one path: name a file for each")
    return lambda: _write(results, files, hub)


def _hub_task(given: str) -> tuple[str, tuple[str, str]]:
    task, _, rest = given.partition("=")
    dataset, _, name = rest.partition(":")
    if not (task and dataset and name):
        raise SpecificationError(
            f"--hub-task {given}: give TASK=DATASET:NAME, as arc_easy=allenai/ai2_arc:ARC-Easy"
        )
    return task, (dataset, name)


def _write(
    results: Sequence[Path], files: Mapping[str, Path], hub: Mapping[str, tuple[str, str]]
) -> int:
    with whole_imports():  # scipy and jinja2 among them
        from forgetguard.report import page
    for path, text in page.written_from(results, partial(_texts, files, hub)).items():
        write_result(path, text)
        sys.stdout.write(f"{path}\n")
    return DONE


def _texts(
    files: Mapping[str, Path], hub: Mapping[str, tuple[str, str]], runs: Sequence[Run]
) -> dict[Path, str]:
    """What to write where: the page of all runs, the rest of the last."""
    import yaml

    from forgetguard.report import findings, markdown, page

    run = runs[-1]

    def card(path: Path) -> str:
        before = read_text(path, "model card") if path.exists() else ""
        return markdown.with_section(before, markdown.summary(run))

    makers: Mapping[str, Callable[[Path], str]] = {
        "output": lambda _: page.render(runs),
        "markdown": lambda _: markdown.summary(run),
        "model_card": card,
        "code_quality": lambda _: findings.code_quality(findings.findings(run, Path.cwd())),
        "eval_results": lambda _: yaml.safe_dump(card_entries(run.document, hub), sort_keys=False),
    }
    written = {files[name]: make(files[name]) for name, make in makers.items() if name in files}
    if "lm_eval" in files:
        scores = lm_eval_results(run.document)
        if not scores:
            raise SpecificationError(
                f"{run.document['options']['tuned']}: its results hold no scores of lm-eval tasks: "
                "give that run a *.gate.yaml with lm_eval:, or leave out --lm-eval"
            )
        for role, content in scores.items():
            text = json.dumps(content, indent=2) + "\n"
            written[files["lm_eval"] / f"results_{role}.json"] = text
    return written


COMMAND = command("report", _options, _prepare)
