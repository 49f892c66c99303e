"""`forgetguard report RESULTS... -o page.html`: results files as one page for people to read."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from forgetguard.cli.command import DONE, Command, Job, whole_imports
from forgetguard.errors import SpecificationError
from forgetguard.report.json_file import check_target
from forgetguard.whole_files import write_result


def _options(parser: ArgumentParser) -> None:
    parser.usage = "forgetguard report RESULTS... -o PAGE"
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


def _prepare(asked: Namespace) -> Job:
    """Check what was asked for.

    Raises:
        SpecificationError: no results file or page is named, or the page cannot be written.
    """
    results = [Path(one) for one in asked.tokens]
    if not results or not asked.output:
        missing = "the results file" if not results else "the page to write"
        raise SpecificationError(
            f"give {missing}: forgetguard report forgetguard.json -o forgetguard.html"
        )
    target = Path(asked.output)
    if target.resolve() in [one.resolve() for one in results]:
        raise SpecificationError(
            f"-o {target} is one of the results files, which would be lost: name another path"
        )
    check_target(target, "the page")
    return lambda: _write(results, target)


def _write(results: Sequence[Path], target: Path) -> int:
    with whole_imports():  # scipy and jinja2 among them
        from forgetguard.report import page
    write_result(target, page.made_of(results))
    sys.stdout.write(f"{target}\n")
    return DONE


COMMAND = Command(
    "report", "write results files as one page to read, without the models", _options, _prepare
)
