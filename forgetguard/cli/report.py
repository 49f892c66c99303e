"""`forgetguard report RESULTS... -o page.html`: results files as one page for people to read."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from forgetguard.cli.command import DONE, SUMMARIES, Command, Job, whole_imports
from forgetguard.errors import SpecificationError
from forgetguard.gate.checksum import check_checksum
from forgetguard.report import json_file
from forgetguard.report.json_file import check_target
from forgetguard.report.lm_eval_file import lm_eval_results
from forgetguard.whole_files import write_result


def _options(parser: ArgumentParser) -> None:
    parser.usage = "forgetguard report RESULTS... [-o PAGE] [--lm-eval FOLDER]"
    parser.description = (
        f"{parser.description} Of several files, of one base and each of another checkpoint, the "
        "page is about the last, with the trend over all of them."
    )
    parser.add_argument(
        "tokens",
        nargs="*",
        metavar="RESULTS",
        help="files that pytest --forgetguard-json wrote, in the order of training",
    )
    parser.add_argument("-o", "--output", metavar="PAGE", help="the HTML file to write")
    parser.add_argument(
        "--lm-eval",
        metavar="FOLDER",
        help="write the last run's scores of lm-eval tasks as results_base.json, ... of lm-eval",
    )


def _prepare(asked: Namespace) -> Job:
    """Check what was asked for.

    Raises:
        SpecificationError: no results file, or nothing to write, is named, or it cannot be written.
    """
    results = [Path(one) for one in asked.tokens]
    if not results or not (asked.output or asked.lm_eval):
        missing = "the results file" if not results else "the page to write"
        raise SpecificationError(
            f"give {missing}: forgetguard report forgetguard.json -o forgetguard.html"
        )
    target = Path(asked.output) if asked.output else None
    if target is not None:
        if target.resolve() in [one.resolve() for one in results]:
            raise SpecificationError(
                f"-o {target} is one of the results files, which would be lost: name another path"
            )
        check_target(target, "the page")
    folder = Path(asked.lm_eval) if asked.lm_eval else None
    if folder is not None:
        check_target(folder / "results_base.json", "lm-eval's results")
    return lambda: _write(results, target, folder)


def _write(results: Sequence[Path], target: Path | None, folder: Path | None) -> int:
    with whole_imports():  # scipy and jinja2 among them
        from forgetguard.report import page
    written = {} if target is None else {target: page.made_of(results)}
    if folder is not None:
        document = json_file.read(results[-1])
        check_checksum(document, str(results[-1]))
        found = lm_eval_results(document)
        if not found:
            raise SpecificationError(
                f"{results[-1]} holds no scores of lm-eval tasks: give that run a *.gate.yaml with "
                "lm_eval:, or leave out --lm-eval"
            )
        for role, content in found.items():
            written[folder / f"results_{role}.json"] = json.dumps(content, indent=2) + "\n"
    for path, text in written.items():
        write_result(path, text)
        sys.stdout.write(f"{path}\n")
    return DONE


COMMAND = Command("report", SUMMARIES["report"], _options, _prepare)
