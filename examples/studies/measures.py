"""Writes the table of docs/measures.md from the registry: `python -m examples.studies.measures`."""

from __future__ import annotations

from pathlib import Path

from examples.studies.pages import fill_blocks
from forgetguard.measures import registry
from forgetguard.report.measure_table import markdown
from forgetguard.whole_files import write_text

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"


def rendered(page: str) -> str:
    """The page with the table of the measures that this package has."""
    own = tuple(map(registry.find, registry.BUILT_IN))
    return fill_blocks(page, "measures", ("all",), lambda _: markdown(own))


if __name__ == "__main__":
    write_text(PAGE, rendered(PAGE.read_text("utf-8")))
