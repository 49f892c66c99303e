"""What a notebook shows of a result: a table, a figure, a data frame."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import import_module
from typing import Any, Protocol

from forgetguard.errors import SpecificationError

COLUMNS = ("quantity", "subject", "value", "low", "high")
Row = tuple[str, str, float, float, float]
_SHOWN = 30  # rows of a quantity in a table or figure


class _Interval(Protocol):
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def row(quantity: str, subject: object, estimate: _Interval) -> Row:
    """An estimate with its bounds, of a head, layer, ... (empty: the whole)."""
    return quantity, str(subject), estimate.value, estimate.low, estimate.high


class Shown:
    """A result of numbers. In a notebook it is a table; `plot` and `to_frame` give the same numbers
    as a figure and as a data frame. What has no interval has its value as both bounds."""

    __slots__ = ()

    def rows(self) -> Sequence[Row]:
        """Its numbers, one a row: quantity, subject, value, lower and upper bound."""
        raise NotImplementedError

    def to_frame(self) -> Any:
        """A pandas.DataFrame of the rows.

        Raises:
            SpecificationError: pandas is not installed.
        """
        return _needed("pandas").DataFrame(list(self.rows()), columns=list(COLUMNS))

    def plot(self, ax: Any = None) -> Any:
        """Draw values with their intervals, at most the 30 largest of a quantity; return the axes.

        Args:
            ax: matplotlib axes to draw into; otherwise a new figure's.

        Raises:
            SpecificationError: matplotlib is not installed.
        """
        rows, more = self._largest()
        if ax is None:
            size = (6.4, 1.2 + 0.24 * len(rows))
            ax = _needed("matplotlib.pyplot").subplots(figsize=size, layout="constrained")[1]
        for quantity in dict.fromkeys(one[0] for one in rows):
            own = [(at, one) for at, one in enumerate(rows) if one[0] == quantity]
            below = [max(0.0, one[2] - one[3]) for _, one in own]
            above = [max(0.0, one[4] - one[2]) for _, one in own]
            values, places = [one[2] for _, one in own], [at for at, _ in own]
            ax.errorbar(values, places, xerr=[below, above], fmt="o", capsize=3, label=quantity)
        ax.axvline(0, color="grey", linewidth=0.8)
        ax.set_yticks(range(len(rows)), [one[1] or "whole" for one in rows])
        ax.invert_yaxis()
        ax.set_title(type(self).__name__ + (f", the largest of {more + len(rows)}" if more else ""))
        if rows:
            ax.legend()
        return ax

    def _repr_html_(self) -> str:
        rows, more = self._largest()
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        body = "".join(
            f"<tr><td>{escape(one[0])}</td><td>{escape(one[1])}</td>"
            + f"<td>{one[2]:.3g}</td>"
            + "".join(f"<td>{number:.3g}</td>" for number in one[3:] if one[3] < one[4])
            + "</tr>"
            for one in rows
        )
        foot = f"<p>and {more} more: to_frame()</p>" if more else ""
        caption = f"<caption>{type(self).__name__}</caption>"
        return f"<table>{caption}<tr>{head}</tr>{body}</table>{foot}"

    def _largest(self) -> tuple[list[Row], int]:
        """The rows to show, in their order, and how many are left out."""
        rows = list(self.rows())
        kept: set[Row] = set()
        for quantity in {one[0] for one in rows}:
            own = sorted((one for one in rows if one[0] == quantity), key=lambda one: -abs(one[2]))
            kept |= set(own[:_SHOWN])
        return [one for one in rows if one in kept], len(rows) - len(kept)


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise SpecificationError(f"{name} is not installed; pip install {name}") from error
