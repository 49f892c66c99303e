"""The command `python -m forgetguard.recipes.statistics_study`: measure, draw, write the page."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetguard.errors import ForgetguardError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure how often verdicts err; write statistics/study.json, the figures in statistics/ and
    the numbers in statistics.md. About ten minutes on one core."""
    asked = _options().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        _run(asked)
    except ForgetguardError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _run(asked: argparse.Namespace) -> None:
    # Heavy imports wait until the options are known to be right.
    from forgetguard.recipes.statistics_study.settings import SMALL, Settings
    from forgetguard.recipes.statistics_study.study import study

    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
        sys.stderr.flush()

    data = study(SMALL if asked.small else Settings(), say=say, large=asked.large)
    write(data, asked.out, plots=not asked.no_plots)
    say(f"written: {asked.out / 'statistics.md'}")


def write(data: Mapping[str, Any], out: Path, *, plots: bool) -> None:
    """Write what belongs to `data` under `out`; the page's prose stays, if there is a page.

    Raises:
        SpecificationError: the page has no place for the numbers.
    """
    from forgetguard.recipes.pages import write_page
    from forgetguard.recipes.statistics_study import page

    results = out / "statistics" / "study.json"
    write_page(out / "statistics.md", page, data, results, compact(data))
    if plots:
        from forgetguard.recipes.statistics_study.plots import draw

        draw(data, out / "statistics")


def compact(data: Mapping[str, Any]) -> str:
    """JSON with a line for each record, so that a change of one shows as one."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace(",{", ",\n{").replace("[{", "[\n{") + "\n"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m forgetguard.recipes.statistics_study", description=main.__doc__
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
    parser.add_argument("--small", action="store_true", help="a trial run: its numbers say nothing")
    parser.add_argument("--no-plots", action="store_true", help="numbers only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
