"""Draws the study: coverage, false alarms, power and sequential drawing (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from examples.studies.drawing import FAINT, INK, write_figures
from examples.studies.statistics.families import CORRECTIONS, KINDS
from examples.studies.statistics.page import WIDTH
from examples.studies.statistics.scenarios import SCENARIOS
from examples.studies.statistics.sequences import FIXED, MOST
from examples.studies.statistics.settings import CIRCUIT_LIMIT, HEAD_LIMIT, LIMITS
from examples.studies.statistics.tables import Data, select

# Okabe and Ito's colours: told apart with any colour vision.
_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#999999")
_MARKS = ("o", "s", "^", "v", "D", "P", "X", "*", "<", ">", "p")
_WIDTH = 10.5


def draw(data: Data, folder: Path) -> list[Path]:
    """Write the four figures to `folder`, which is made where there is none; their paths."""
    return write_figures(FIGURES, data, folder, salt="statistics study")


def coverage(data: Data) -> Figure:
    """How often each bound misses, and the two-sided interval holds, over the number of pairs."""
    figure, panels = _panels(3, 3.6)
    wanted = {"high": "wrong pass: upper bound below the truth (%)"}
    wanted |= {"low": "false alarm: lower bound above the truth (%)"}
    wanted |= {"holds": "two-sided interval holds the truth (%)"}
    for panel, (key, label) in zip(panels, wanted.items(), strict=True):
        for place, name in enumerate(SCENARIOS):
            rows = select(data["coverage"], scenario=name, interval="fieller")
            panel.plot(
                [one["pairs"] for one in rows],
                [one[key] for one in rows],
                color=_COLOURS[place % len(_COLOURS)],
                marker=_MARKS[place],
                ms=4,
                lw=1,
                label=name.replace("_", " "),
            )
        band = WIDTH if key == "holds" else (3.0, 7.0)
        panel.axhspan(*band, color=FAINT, alpha=0.15, lw=0)
        _log_pairs(panel, data)
        panel.set_ylim((75, 100) if key == "holds" else (0, 17))
        panel.set_title(label, fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def alarms(data: Data) -> Figure:
    """How often any of eight heads is failed falsely, by correction and kind of data."""
    figure, panels = _panels(2, 3.2)
    rows = select(data["corrections"], limits=1)
    for panel, pairs in zip(panels, sorted({one["pairs"] for one in rows}), strict=False):
        for place, (key, words) in enumerate(CORRECTIONS.items()):
            values = [select(rows, pairs=pairs, data=kind)[0][key] for kind in KINDS]
            places = [number + 0.25 * (place - 1) for number in range(len(values))]
            panel.bar(places, values, 0.23, color=_COLOURS[(4, 2, 1)[place]], label=words)
        panel.axhline(5, color=INK, lw=0.8, dashes=(4, 3))
        panel.set_xticks(range(len(KINDS)), list(KINDS), fontsize=8)
        panel.set_title(f"eight heads at their limit, {pairs} pairs", fontsize=9)
        panel.set_ylabel("runs with a false alarm (%)")
    panels[0].legend(frameon=False)
    return figure


def power(data: Data) -> Figure:
    """How often the limits pass and fail, over the true value."""
    figure, panels = _panels(2, 3.4)
    parts: Mapping[str, tuple[float, str]] = {
        "circuits": (CIRCUIT_LIMIT, "true DCV of the circuit"),
        "heads": (HEAD_LIMIT, "true DCV of one head of eight"),
    }
    for panel, (part, (limit, label)) in zip(panels, parts.items(), strict=True):
        for place, pairs in enumerate(data["settings"]["pairs"]):
            rows = select(data[part], pairs=pairs, limits=LIMITS)
            at = [one["dose"] for one in rows]
            colour = _COLOURS[place + 1]
            fails = [one["fails"] for one in rows]
            panel.plot(at, fails, color=colour, marker="o", ms=3, label=f"fails, n = {pairs}")
            passes = [one["passes"] for one in rows]
            panel.plot(at, passes, color=colour, lw=1, dashes=(4, 2), label="passes")
        panel.axvline(limit, color=INK, lw=0.8)
        panel.axhline(80, color=FAINT, lw=0.7, dashes=(2, 2))
        panel.set_xlabel(f"{label} (limit {limit:g}, one of {LIMITS} limits)")
        panel.set_ylabel("verdicts (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    return figure


def sequences(data: Data) -> Figure:
    """Pairs drawn until a limit is decided, and what is decided, over the true value."""
    figure, panels = _panels(2, 3.2)
    for place, kind in enumerate(("pocock", "obrien_fleming", FIXED)):
        rows = select(data["sequences"], spending=kind)
        at = [one["dose"] for one in rows]
        words = {"obrien_fleming": "O'Brien-Fleming-like", FIXED: f"{MOST} pairs at once"}
        colour = _COLOURS[(1, 4, 0)[place]]
        label = words.get(kind, "Pocock-like (the gate's)")
        pairs = [one["pairs"] for one in rows]
        decided = [100 - one["undecided"] for one in rows]
        for panel, drawn in zip(panels, (pairs, decided), strict=True):
            panel.plot(at, drawn, color=colour, marker="o", ms=3, label=label)
    for panel, label in zip(panels, ("pairs drawn, on average", "decided (%)"), strict=True):
        panel.axvline(CIRCUIT_LIMIT, color=INK, lw=0.8)
        panel.set_xlabel(f"true DCV of the circuit (limit {CIRCUIT_LIMIT:g})")
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


FIGURES = {"coverage": coverage, "alarms": alarms, "power": power, "sequences": sequences}


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine())
    found = figure.subplots(1, count, squeeze=False)
    return figure, list(found[0])


def _log_pairs(panel: Axes, data: Data) -> None:
    sizes = list(data["settings"]["pairs"])
    panel.set_xscale("log", base=2)
    panel.set_xticks(sizes, [str(pairs) for pairs in sizes])
    panel.minorticks_off()
    panel.set_xlabel("prompt pairs")
