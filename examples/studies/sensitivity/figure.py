"""Draws a circuit's dose-response: what is read above, what the gate makes of it below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from examples.studies.drawing import FAINT, INK, write_figures
from examples.studies.sensitivity.detection import POWER
from examples.studies.sensitivity.dose_response import Curve, Point
from forgetguard.gate.verdict import Estimate

# Okabe and Ito's colours: told apart with any colour vision.
_BLUE, _RED, _GREEN, _ORANGE, _GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#999999"
_WIDTH, _LEAST_WIDTH = 10.5, 5.2  # inches
_DOSE = {
    "mixture": "share of the counterfactual's output",
    "scale": "share of the output slice taken away",
    "noise": "norm of the noise / norm of the slice",
    "rank-one": "norm of the edit / norm of the slice",
}


def draw(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """One SVG a circuit, named after it, a column for each plant and head; their paths."""
    names = list(dict.fromkeys(curve.spec.name for curve in curves))
    figures = {
        name: (lambda found, name=name: figure([one for one in found if one.spec.name == name]))
        for name in names
    }
    return write_figures(figures, list(curves), folder, salt="sensitivity")


def figure(curves: Sequence[Curve]) -> Figure:
    """All curves of one circuit."""
    columns = len(curves)
    width = max(_LEAST_WIDTH, min(_WIDTH, 3.5 * columns))
    drawn = Figure(figsize=(width, 5.6), layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06))
    title = f"{curves[0].spec.name}: planted damage, read and judged"
    drawn.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
    panels = drawn.subplots(2, columns, squeeze=False, sharey="row", sharex="col")
    for column, curve in enumerate(curves):
        top, bottom = panels[0][column], panels[1][column]
        top.set_title(f"{curve.plant} in {curve.head}", loc="left")
        _readings(top, curve)
        _decisions(bottom, curve)
        bottom.set_xlabel(_DOSE[curve.plant])
    panels[0][0].set_ylabel("DCV; shares of the base's")
    panels[1][0].set_ylabel("share of draws that fail")
    handles, labels = panels[0][0].get_legend_handles_labels()
    more, further = panels[1][0].get_legend_handles_labels()
    drawn.legend(
        handles + more,
        labels + further,
        loc="outside lower center",
        ncols=min(4, columns + 1),
        frameon=False,
        fontsize=8,
    )
    return drawn


def _readings(panel: Axes, curve: Curve) -> None:
    doses, points = curve.doses, curve.points
    _band(panel, doses, [point.circuit for point in points], _BLUE)
    _line(panel, doses, _values(point.circuit for point in points), _BLUE, "DCV of the circuit")
    planted = _values(point.planted for point in points)
    _line(panel, doses, planted, _RED, "DCV of the planted head")
    own = _values(point.own for point in points)
    panel.plot(doses, own, "o", mfc="none", mec=_RED, ms=6.5, mew=0.8, label="its own damage")
    others = _values(None if point.other is None else point.other[1] for point in points)
    _line(panel, doses, others, _GREY, "largest DCV of another head")
    first = points[0]
    panel.plot(
        doses, _shares_of(points, first), "--", color=_GREEN, lw=1.2, label="readout / base's"
    )
    panel.plot(
        doses, [point.accuracy for point in points], "--", color=_ORANGE, lw=1.2, label="accuracy"
    )
    panel.axhline(0, color=FAINT, lw=0.5, zorder=0)


def _shares_of(points: Sequence[Point], first: Point) -> list[float]:
    """The readout as a share of the base's; of a log-probability, which falls from below 0, the
    geometric-mean probability as a share of the base's."""
    if first.readout > 0:
        return [point.readout / first.readout for point in points]
    return [math.exp(point.readout - first.readout) for point in points]


def _values(estimates: object) -> list[float]:
    return [math.nan if one is None else one.value for one in estimates]  # type: ignore[attr-defined]


def _line(
    panel: Axes, doses: Sequence[float], values: Sequence[float], color: str, label: str
) -> None:
    panel.plot(doses, values, "-o", color=color, lw=1.5, ms=3, label=label)


def _band(
    panel: Axes, doses: Sequence[float], estimates: Sequence[Estimate | None], color: str
) -> None:
    low = [math.nan if one is None else one.low for one in estimates]
    high = [math.nan if one is None else one.high for one in estimates]
    panel.fill_between(doses, low, high, color=color, alpha=0.18, lw=0)


def _decisions(panel: Axes, curve: Curve) -> None:
    styles = {"dcv.circuit": (_BLUE, "o"), "dcv.head": (_RED, "s"), "accuracy.drop": (_ORANGE, "^")}
    for number, limit in enumerate(curve.spec.limits):
        color, marker = styles.get(limit.key, (_GREY, "dv<>"[number % 4]))
        failed = [point.shares[limit.key].failed for point in curve.points]
        label = f"{limit.key} <= {limit.maximum:g} fails"
        panel.plot(curve.doses, failed, f"-{marker}", color=color, lw=1.5, ms=3.5, label=label)
    panel.axhline(POWER, color=FAINT, lw=0.7, dashes=(4, 3), zorder=0)
    panel.text(1.0, POWER, f"{POWER:.0%}", ha="right", va="bottom", fontsize=7.5, color=INK)
    panel.set_ylim(-0.04, 1.04)
