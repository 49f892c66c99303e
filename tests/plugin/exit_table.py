"""The table of exit statuses in docs/gate.md, which the plugin's tests take their statuses from."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "gate.md"
_ROW = re.compile(r"\| (?P<what>.+) \| (?P<status>\d) \|")


def rows() -> dict[str, int]:
    """What happened, in the table's words, and the status."""
    section = DOCS.read_text(encoding="utf-8").partition("## Exit status")[2].partition("\n## ")[0]
    found = [match for line in section.splitlines() if (match := _ROW.fullmatch(line))]
    return {match["what"]: int(match["status"]) for match in found}


def documented(what: str) -> int:
    """The status of a row, by its words; a KeyError where the table has no such row."""
    return rows()[what]
