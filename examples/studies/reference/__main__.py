"""`python -m examples.studies.reference PRESET`: train a family, measure it, hold it against the
papers."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from examples.studies.command import check_matplotlib
from examples.studies.reference.plan import STAGES, Plan, presets, read_plan
from forgetguard.cli import entry
from forgetguard.cli.command import DONE, FAILED, INTERRUPTED, Command, Job, say, whole_imports
from forgetguard.cli.values import needs_module
from forgetguard.errors import SpecificationError

_PROGRAM = "python -m examples.studies.reference"
_USAGE = f"{_PROGRAM} PRESET [KEY=VALUE ...]"


def _options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = f"{_USAGE} [--out DIR] [--jobs N] [--only STAGE]"
    add(
        "tokens",
        nargs="*",
        metavar="PRESET KEY=VALUE",
        help=f"a preset ({', '.join(presets())}, or a .yaml file like them), and any of its "
        "values changed: seeds=0,1, recipes=sft,rl, sft.steps=100, all.batch=8",
    )
    add(
        "--out",
        metavar="DIR",
        help="where everything goes, and is taken up; default: reference-PRESET",
    )
    add("--jobs", type=int, default=2, metavar="N", help="processes at once; default: 2")
    add(
        "--only",
        choices=STAGES,
        help="one stage alone, from what the others have left in DIR",
    )
    add("--docs", metavar="DIR", help="where reference.md and its figures go; default: --out")
    add("--no-figures", action="store_true", help="numbers and page only")


def _prepare(asked: Namespace) -> Job:
    plan = _plan(asked)
    if asked.jobs < 1:
        raise SpecificationError(f"--jobs: {asked.jobs}; give 1 or more")
    stages = (asked.only,) if asked.only else STAGES
    if "train" in stages:
        needs_module("trl", "training", "recipes")
    if "report" in stages and not asked.no_figures:
        check_matplotlib("--no-figures")
    docs = Path(asked.docs) if asked.docs else None

    def job() -> int:
        return _carry_out(plan, asked.jobs, stages, docs, not asked.no_figures)

    return job


def _plan(asked: Namespace) -> Plan:
    if not asked.tokens:
        raise SpecificationError(f"write {_USAGE}, with a preset of {', '.join(presets())}")
    preset, *overrides = asked.tokens
    out = Path(asked.out) if asked.out else Path(f"reference-{Path(preset).stem}")
    return read_plan(preset, overrides, out=out)


def _carry_out(
    plan: Plan, jobs: int, stages: tuple[str, ...], docs: Path | None, figures: bool
) -> int:
    with whole_imports():
        from examples.studies.reference import suite
    started = time.monotonic()

    def tell(line: str) -> None:
        say(f"{time.monotonic() - started:6.0f} s  {line}")

    try:
        found = suite.run(plan, jobs=jobs, stages=stages, docs=docs, figures=figures, say=tell)
    except KeyboardInterrupt:
        say(
            f"{_PROGRAM}: interrupted; finished work is kept, and the same command goes on from "
            "there"
        )
        return INTERRUPTED
    for name, why in found.failed.items():
        say(f"{_PROGRAM}: {name} failed: {why}")
    return FAILED if found.failed else DONE


COMMAND = Command(
    "reference",
    "train the papers' recipes, measure what they forget, judge what the papers claim",
    _options,
    _prepare,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite as `arguments` say (default: of this process); returns the exit status."""
    return entry.run(entry.parser_of(COMMAND, _PROGRAM), arguments)


if __name__ == "__main__":
    sys.exit(main())
