"""`forgetguard measures`: everything that a limit may bound, one line each."""

from __future__ import annotations

import sys

from forgetguard.cli.command import DONE, listing
from forgetguard.measures import registry
from forgetguard.report.measure_table import text


def _list() -> int:
    sys.stdout.write(text(registry.all_measures()))
    return DONE


COMMAND = listing("measures", _list)
