"""The command `python -m examples.studies.circuits`: measure, draw and write the page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.studies import circuits
from examples.studies.command import Say, carry_out, check_matplotlib, compact, write_study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every discovery method on every capability of a base; write circuits/study.json, the
    figures in circuits/ and the numbers in circuits.md. An interrupted run goes on where it was."""
    asked = _options().parse_args(arguments)
    if asked.base.startswith("tiny:"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return carry_out(lambda say: _run(asked, say))


def _run(asked: argparse.Namespace, say: Say) -> None:
    # Heavy imports wait until the options are known to be right.
    from examples.studies.circuits.study import chosen, study
    from examples.studies.tiny_prompts import TASKS_OF_TINY

    if not asked.no_plots:
        check_matplotlib()
    data = study(
        asked.base,
        tasks=asked.tasks or tuple(TASKS_OF_TINY),
        pairs=asked.pairs,
        seeds=asked.seeds,
        variants=chosen(asked.methods),
        say=say,
    )
    at = write_study(data, asked.out, circuits, lines(data), plots=not asked.no_plots)
    say(f"written: {at}")


def lines(data: Mapping[str, Any]) -> str:
    """JSON with a line for each record, so that a change of one shows as one."""
    return compact(data).replace('{"variant"', '\n{"variant"') + "\n"


def _base(text: str) -> str:
    name, found, value = text.partition("=")
    return value if found and name == "base" else text


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.studies.circuits", description=main.__doc__
    )
    parser.add_argument(
        "base",
        nargs="?",
        default="tiny:base",
        type=_base,
        metavar="base=CHECKPOINT",
        help="what is studied (default: tiny:base, on prompts that it was not trained on)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("docs"), metavar="DIR", help="where to write (docs)"
    )
    parser.add_argument("--pairs", type=int, default=128, help="prompt pairs a capability (128)")
    parser.add_argument("--seeds", type=int, default=3, help="splits of the pairs (3)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="capabilities (tiny:base's)")
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="methods or variants of them (all)"
    )
    parser.add_argument("--no-plots", action="store_true", help="numbers only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
