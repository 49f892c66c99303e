"""The command `python -m examples.studies.statistics`: measure, draw, write the page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.studies import statistics
from examples.studies.command import Say, carry_out, check_matplotlib, compact, write_study
from forgetguard.whole_files import write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure how often verdicts err; write statistics/study.json, the figures in statistics/ and
    the numbers in statistics.md, and in the README beside that folder. About ten minutes of one
    idle core."""
    asked = _options().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return carry_out(lambda say: _run(asked, say))


def _run(asked: argparse.Namespace, say: Say) -> None:
    # Heavy imports wait until the options are known to be right.
    from examples.studies.statistics import page
    from examples.studies.statistics.settings import SMALL, Settings
    from examples.studies.statistics.study import study

    if not asked.no_plots:
        check_matplotlib()
    settings = (SMALL if asked.small else Settings()).times(max(1, asked.repeat))
    data = study(
        settings, say=say, large=asked.large, real=asked.real, workers=max(1, asked.workers)
    )
    at = write_study(data, asked.out, statistics, lines(data), plots=not asked.no_plots)
    say(f"written: {at}")
    readme = asked.out.parent / "README.md"
    if readme.is_file() and "<!-- statistics: " in readme.read_text("utf-8"):
        write_text(readme, page.fill(readme.read_text("utf-8"), data))


def lines(data: Mapping[str, Any]) -> str:
    """JSON with a line for each record, so that a change of one shows as one."""
    return compact(data).replace(",{", ",\n{").replace("[{", "[\n{") + "\n"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.statistics", description=main.__doc__
    )
    parser.add_argument(
        "--out", type=Path, default=Path("docs"), metavar="DIR", help="where to write (docs)"
    )
    parser.add_argument(
        "--large",
        type=Path,
        metavar="FILE.npz",
        help="keep the tiny family's large sets in this file, or read them from it",
    )
    parser.add_argument(
        "--real",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE.npz",
        help="what examples.studies.statistics.collect read of other models",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="N times as many draws")
    parser.add_argument("--small", action="store_true", help="a trial run: its numbers say nothing")
    parser.add_argument("--no-plots", action="store_true", help="numbers only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
