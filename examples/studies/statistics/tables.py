"""Records chosen, and tables of them in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Data = Mapping[str, Any]
Record = Mapping[str, Any]


def select(records: Sequence[Record], **wanted: Any) -> list[Record]:
    """The records with these values."""
    return [one for one in records if all(one[key] == value for key, value in wanted.items())]


def table(head: str | Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text; `head` may be one text with bars."""
    titles = head.split("|") if isinstance(head, str) else head
    rule = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, rule, *rows])
