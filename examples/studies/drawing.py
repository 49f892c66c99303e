"""The look that all figures of the docs share, and writing them as SVG (matplotlib)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

T = TypeVar("T")

INK, FAINT = "#333333", "#777777"
_STYLE: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",  # text stays text
}


def write_figures(
    figures: Mapping[str, Callable[[T], Figure]], data: T, folder: Path, salt: str
) -> list[Path]:
    """Draw each of `figures` from `data` and write it to `folder`, which is made where there is
    none; their paths. The same data and `salt` give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with _own_style(salt):
        for name, make in figures.items():
            figure = make(data)
            path = folder / f"{name}.svg"
            FigureCanvasSVG(figure)
            figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")
            drawn.append(path)
    return drawn


@contextmanager
def _own_style(salt: str) -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**dict[Any, Any](_STYLE), "svg.hashsalt": salt})
        yield
