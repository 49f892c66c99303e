"""Pages whose numbers are rendered from data into their place between two markers, so that text and
data cannot drift apart. [light]"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from forgetguard.errors import SpecificationError


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
