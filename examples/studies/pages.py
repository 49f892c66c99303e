"""Pages whose numbers are rendered from data into their place between two markers, so that text and
data cannot drift apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from forgetguard.errors import SpecificationError
from forgetguard.whole_files import write_text


def fill_blocks(page: str, kind: str, known: Collection[str], render: Callable[[str], str]) -> str:
    """The page with every block between `<!-- KIND: NAME -->` and `<!-- end -->` rendered anew.

    Raises:
        SpecificationError: the page asks for a block that is not `known`, or for none.
    """
    block = re.compile(rf"(<!-- {kind}: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    names = [name for _, name, _ in block.findall(page)]
    strange = sorted(set(names) - set(known))
    if strange or not names:
        raise SpecificationError(
            f"the page's blocks are {', '.join(names) or 'missing'}; it needs some of "
            f"{', '.join(known)}, each between <!-- {kind}: NAME --> and <!-- end -->"
        )
    return block.sub(lambda match: f"{match[1]}\n{render(match[2])}\n\n{match[3]}", page)


class Page(Protocol):
    """A module that renders data: into a page that is there, or into a bare one."""

    def fill(self, page: str, found: Mapping[str, Any], /) -> str: ...

    def bare(self, found: Mapping[str, Any], /) -> str: ...


def write_page(at: Path, page: Page, data: Mapping[str, Any], results: Path, text: str) -> None:
    """Write the page with `data` rendered into it (its prose stays, where there is one) and, as
    `text`, the data themselves to `results`; nothing where the page has no place for them.

    Raises:
        SpecificationError: the page has no place for the numbers.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    written = page.fill(at.read_text("utf-8"), data) if at.exists() else page.bare(data)
    write_text(results, text)
    write_text(at, written)
