"""`forgetguard compare`: the paper's quantities for base, tuned and reference, in one table."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from forgetguard.cli.command import DONE, INTERRUPTED, Command, Job, say, whole_imports
from forgetguard.cli.progress import progress_bar
from forgetguard.comparison import command
from forgetguard.comparison.command import Plan
from forgetguard.errors import SpecificationError
from forgetguard.report import json_file


def _options(parser: ArgumentParser) -> None:
    command.options(parser)
    parser.add_argument(
        "-o", "--json", metavar="FILE", type=Path, help="also write everything as JSON"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")


def _prepare(asked: Namespace) -> Job:
    out: Path | None = asked.json
    if out is not None:
        json_file.check_target(out)
        if out.exists() and not asked.force:
            raise SpecificationError(f"-o: {out} is there already; name another or give --force")
    elif asked.force:
        raise SpecificationError("--force needs -o FILE: there is nothing to replace")
    plan = command.read_plan(asked)
    return lambda: _compare(plan, out)


def _compare(plan: Plan, out: Path | None) -> int:
    with whole_imports():
        from forgetguard.comparison import compare as _heavy  # noqa: F401
        from forgetguard.report.comparison_table import comparison_text, comparisons_json
    try:
        with progress_bar() as bar:
            found = command.carry_out(plan, say, bar)
    except KeyboardInterrupt:
        kept = "finished work is kept, and the same command goes on from there"
        say(f"forgetguard compare: interrupted; {kept if plan.keep else 'nothing was kept'}")
        return INTERRUPTED
    if out is not None:
        json_file.write_text(out, comparisons_json(found))
    sys.stdout.write("\n\n".join(comparison_text(one) for one in found) + "\n")
    return DONE


COMMAND = Command(
    "compare",
    "circuits of base, tuned and reference side by side: the paper's quantities",
    _options,
    _prepare,
)
