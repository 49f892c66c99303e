"""`forgetguard measures`: everything that a limit may bound, one line each."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from forgetguard.cli.command import DONE, Command, Job
from forgetguard.errors import SpecificationError
from forgetguard.measures import registry
from forgetguard.report.measure_table import text


def _options(parser: ArgumentParser) -> None:
    """It takes none."""


def _prepare(asked: Namespace) -> Job:
    if asked.tokens:
        raise SpecificationError(f"takes no arguments, got {' '.join(asked.tokens)}")
    return _list


def _list() -> int:
    sys.stdout.write(text(registry.all_measures()))
    return DONE


COMMAND = Command("measures", "list everything that a limit may bound", _options, _prepare)
