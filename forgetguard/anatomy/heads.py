"""Names of attention heads: L5H3 is query head 3 of decoder layer 5, both counted from 0."""

from __future__ import annotations

import re
from dataclasses import dataclass

from forgetguard.errors import SpecificationError

_NAME = re.compile(r"L(\d+)H(\d+)")


@dataclass(frozen=True, order=True, slots=True)
class Head:
    """Query head `index` of decoder layer `layer` (both 0-based)."""

    layer: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.index}"

    @classmethod
    def parse(cls, name: str) -> Head:
        """Read a name such as `L5H3`.

        Raises:
            SpecificationError: `name` is not of that form.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise SpecificationError(
                f"{name!r} is not a head: write layer and query head, both from 0, as in L5H3"
            )
        return cls(int(match[1]), int(match[2]))
