"""Names of what a circuit consists of: attention heads (L5H3) and whole MLP layers (L5MLP).

L5H3 is query head 3 of decoder layer 5, both counted from 0; L5MLP is that layer's MLP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from forgetguard.errors import SpecificationError

_NAME = re.compile(r"L(\d+)H(\d+)")
_MLP_NAME = re.compile(r"L(\d+)MLP")


class _Named:
    """Pydantic writes members by their names, and reads them so."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Member], handler: Any) -> Any:
        from pydantic import PlainSerializer, PlainValidator

        def read(name: object) -> Member:
            try:
                found = name if isinstance(name, source) else parse_member(str(name))
            except SpecificationError as error:
                raise ValueError(str(error)) from error
            if not isinstance(found, source):
                raise ValueError(f"{name!r} is no {source.__name__}")
            return found

        return handler.generate_schema(
            Annotated[object, PlainValidator(read), PlainSerializer(str, return_type=str)]
        )


@dataclass(frozen=True, slots=True)
class Head(_Named):
    """Query head `index` of decoder layer `layer` (both 0-based)."""

    layer: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.index}"

    def __lt__(self, other: Member) -> bool:
        return place(self) < place(other)

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


@dataclass(frozen=True, slots=True)
class Mlp(_Named):
    """The MLP of decoder layer `layer` (0-based), as a whole."""

    layer: int

    def __str__(self) -> str:
        return f"L{self.layer}MLP"

    def __lt__(self, other: Member) -> bool:
        return place(self) < place(other)


Member: TypeAlias = Head | Mlp


def place(member: Member) -> tuple[int, bool, int]:
    """What members are ordered by: layer, heads before the MLP, index."""
    if isinstance(member, Mlp):
        return member.layer, True, 0
    return member.layer, False, member.index


def parse_member(name: str) -> Member:
    """Read a name such as `L5H3` or `L5MLP`.

    Raises:
        SpecificationError: `name` is neither.
    """
    match = _MLP_NAME.fullmatch(name)
    if match is not None:
        return Mlp(int(match[1]))
    if _NAME.fullmatch(name) is None:
        raise SpecificationError(
            f"{name!r} is neither a head nor an MLP layer: write layer and query head, both from "
            "0, as in L5H3, or L5MLP"
        )
    return Head.parse(name)


def heads_of(members: Iterable[Member]) -> tuple[Head, ...]:
    """The attention heads among `members`, in their order."""
    return tuple(member for member in members if isinstance(member, Head))
