"""The command `python -m forgetguard.recipes.circuit_study`: measure, draw and write the page."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetguard.errors import ForgetguardError, SpecificationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every discovery method on every capability of a base; write circuits/study.json, the
    figures in circuits/ and the numbers in circuits.md. An interrupted run goes on where it was."""
    asked = _options().parse_args(arguments)
    if asked.base.startswith("tiny:"):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        _run(asked)
    except ForgetguardError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _run(asked: argparse.Namespace) -> None:
    # Heavy imports wait until the options are known to be right.
    from forgetguard.recipes.circuit_study.study import chosen, study
    from forgetguard.recipes.tiny.episodes import TASKS_OF_TINY

    if not asked.no_plots:
        _check_matplotlib()
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
        sys.stderr.flush()

    data = study(
        asked.base,
        tasks=asked.tasks or tuple(TASKS_OF_TINY),
        pairs=asked.pairs,
        seeds=asked.seeds,
        variants=chosen(asked.methods),
        say=say,
    )
    write(data, asked.out, plots=not asked.no_plots)
    say(f"written: {asked.out / 'circuits.md'}")


def write(data: Mapping[str, Any], out: Path, *, plots: bool) -> None:
    """Write what belongs to `data` under `out`; the page's prose stays, if there is a page.

    Raises:
        SpecificationError: the page has no place for the numbers.
    """
    from forgetguard.recipes.circuit_study import page
    from forgetguard.recipes.pages import write_page

    results = out / "circuits" / "study.json"
    write_page(out / "circuits.md", page, data, results, compact(data))
    if plots:
        from forgetguard.recipes.circuit_study.plots import draw

        draw(data, out / "circuits")


def compact(data: Mapping[str, Any]) -> str:
    """JSON with a line for each record, so that a change of one shows as one."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace('{"variant"', '\n{"variant"') + "\n"


def _check_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise SpecificationError(
            "the figures need matplotlib: pip install 'forgetguard[plots]', or give --no-plots"
        )


def _base(text: str) -> str:
    name, found, value = text.partition("=")
    return value if found and name == "base" else text


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m forgetguard.recipes.circuit_study", description=main.__doc__
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
