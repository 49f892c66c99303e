"""Draws a study: curves, importance, agreement and roles, each a page-wide SVG (matplotlib)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from examples.studies.circuits import summary
from examples.studies.circuits.summary import Data, Matrix
from examples.studies.drawing import FAINT, INK, write_figures
from forgetguard.anatomy.members import parse_member

# Okabe and Ito's colours: told apart with any colour vision. One hue a family of methods, and a
# dash pattern in it.
_BLACK, _BLUE, _SKY, _GREEN = "#000000", "#0072B2", "#56B4E9", "#009E73"
_ORANGE, _RED, _PURPLE, _GREY = "#E69F00", "#D55E00", "#CC79A7", "#BBBBBB"
_LINES: Mapping[str, tuple[str, str]] = {
    "activation": (_BLACK, "-"),
    "denoising": (_BLACK, ":"),
    "attribution": (_SKY, "-"),
    "attribution_alone": (_BLUE, "-"),
    "attribution_qkv": (_BLUE, "--"),
    "attribution_qkv_linear": (_BLUE, ":"),
    "integrated": (_GREEN, "-."),
    "masking": (_RED, "-"),
    "masking_suffice": (_ORANGE, "--"),
    "desiderata": (_PURPLE, "-"),
}
_WIDTH = 10.5  # inches; a page of 1,000 pixels shows the text a little smaller than its own
_COLUMNS = 3
_NAMED = 6  # heads named in a panel
_ANNOTATED = 64  # heads (or cells) up to which their numbers are written into them


def draw(data: Data, folder: Path) -> list[Path]:
    """Write the four figures to `folder`, which is made where there is none; their paths."""
    return write_figures(FIGURES, data, folder, salt="circuit study")


# --- Faithfulness over size -----------------------------------------------------------------------


def faithfulness(data: Data) -> Figure:
    """One panel a capability, one line a method (mean over splits), random orders as a band."""
    figure, panels, spare = _panels(data, 2.75)
    for task, panel in panels.items():
        _curves(panel, data, task)
        panel.set_xlabel("heads kept")
        panel.set_ylabel("faithfulness f")
    _key_of_methods(spare, data)
    sizes = [one["size"] for one in summary.records(data, "activation")]
    n = len(data["members"])
    title = (
        f"Activation patching needs {min(sizes)} to {max(sizes)} of {n} heads to keep "
        f"{data['faithful']:.0%} of the effect"
    )
    by_chance = [one["size"] for one in summary.records(data, "random")]
    if by_chance:
        title += f"; random orders need {min(by_chance)} to {max(by_chance)}"
    return _titled(figure, title)


def _curves(panel: Axes, data: Data, task: str) -> None:
    n = len(data["members"])
    panel.axhline(data["faithful"], color=FAINT, lw=0.7, dashes=(4, 3), zorder=1)
    for key in data["variants"]:
        sizes, rows = summary.curves(data, key, task)
        if key == "random":
            low, high = rows.min(axis=0), rows.max(axis=0)
            panel.fill_between(sizes, low, high, color=_GREY, alpha=0.5, lw=0, zorder=0)
        else:
            color, dashes = _LINES.get(key, (FAINT, "-"))
            panel.plot(sizes, rows.mean(axis=0), color=color, ls=dashes, lw=_width(key))
    panel.set_xlim(0, n)
    panel.set_xticks(np.linspace(0, n, 5).round().astype(int))
    panel.set_ylim(-0.15, 1.15)
    panel.set_yticks([0, 0.5, data["faithful"], 1])


def _width(variant: str) -> float:
    """Others lie on top of activation patching where they agree with it: it is drawn wider."""
    return 3.0 if variant == "activation" else 1.4


def _key_of_methods(spare: Axes, data: Data) -> None:
    handles: list[Line2D | Patch] = []
    for key, variant in data["variants"].items():
        if key == "random":
            n = len({one["seed"] for one in summary.records(data, key)})
            label = f"{variant['label']}s, range of {n}"
            handles.append(Patch(color=_GREY, alpha=0.5, lw=0, label=label))
        else:
            color, dashes = _LINES.get(key, (FAINT, "-"))
            look: dict[str, Any] = {"color": color, "ls": dashes, "lw": _width(key)}
            handles.append(Line2D([], [], label=variant["label"], **look))
    spare.legend(handles=handles, loc="center left", frameon=False, handlelength=2.8, fontsize=8.5)


# --- Importance -----------------------------------------------------------------------------------


def importance(data: Data) -> Figure:
    """One panel a capability, layers by heads; the circuits' heads outlined."""
    figure, panels, spare = _panels(data, 2.2)
    most = max(max(map(abs, found["necessity"])) for found in data["tasks"].values())
    image = None
    for task, panel in panels.items():
        grid, places = _grid(data, data["tasks"][task]["necessity"])
        image = panel.imshow(grid, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        _outline(panel, data, task, places)
        _percents(panel, grid, most)
        panel.set_xticks(range(grid.shape[1]) if grid.shape[1] <= 12 else [0, grid.shape[1] - 1])
        panel.set_yticks(range(grid.shape[0]) if grid.shape[0] <= 12 else [0, grid.shape[0] - 1])
        panel.set_xlabel("head")
        panel.set_ylabel("layer")
    if image is not None:
        inset = spare.inset_axes((0.02, 0.72, 0.9, 0.1))
        bar = figure.colorbar(image, cax=inset, orientation="horizontal")
        bar.outline.set_visible(False)
        bar.set_label("lost when the head reads the counterfactual\n(% of the whole effect)")
        bar.set_ticks([-most, 0, most], labels=[f"-{most:.0%}"[:-1], "0", f"{most:.0%}"[:-1]])
    handles = [
        Patch(fill=False, edgecolor=INK, lw=1.6, label="in the circuit on every split"),
        Patch(fill=False, edgecolor=INK, lw=0.9, ls=":", label="on some splits"),
    ]
    spare.legend(handles=handles, loc="lower left", frameon=False, fontsize=8.5, borderpad=0)
    return _titled(figure, _where(data))


def _where(data: Data) -> str:
    totals = np.zeros(1 + max(parse_member(one).layer for one in data["members"]))
    for found in data["tasks"].values():
        sizes = np.abs(found["necessity"])
        for name, size in zip(data["members"], sizes / sizes.sum(), strict=True):
            totals[parse_member(name).layer] += size / len(data["tasks"])
    layer = int(totals.argmax())
    held = [
        abs(found["necessity"][i])
        for task, found in data["tasks"].items()
        for i in summary.always_and_sometimes(data, task)[0]
    ]
    small = sum(size < summary.NOTABLE for size in held)
    return (
        f"Layer {layer} holds {totals[layer]:.0%} of what single heads are worth, and {small} of "
        f"the {len(held)} heads in circuits are worth under {summary.NOTABLE:.0%} each"
    )


def _grid(data: Data, values: Sequence[float]) -> tuple[Matrix, dict[int, tuple[int, int]]]:
    """`values` as [layer, head], and where each member stands in it."""
    places = {}
    for number, name in enumerate(data["members"]):
        head = parse_member(name)
        places[number] = (head.layer, getattr(head, "index", 0))
    grid = np.full(np.array(list(places.values())).max(axis=0) + 1, np.nan)
    for number, place in places.items():
        grid[place] = values[number]
    return grid, places


def _outline(panel: Axes, data: Data, task: str, places: Mapping[int, tuple[int, int]]) -> None:
    always, sometimes = summary.always_and_sometimes(data, task)
    for members, style in ((always, {"lw": 1.6}), (sometimes, {"lw": 0.9, "ls": ":"})):
        for number in members:
            layer, head = places[number]
            corner = (head - 0.45, layer - 0.44)
            box = Rectangle(corner, 0.9, 0.88, fill=False, edgecolor=INK, **style)
            panel.add_patch(box)


def _percents(panel: Axes, grid: Matrix, most: float) -> None:
    if grid.size > _ANNOTATED:
        return
    for (layer, head), value in np.ndenumerate(grid):
        if np.isfinite(value):
            dark = abs(value) > 0.6 * most
            text = f"{100 * value:.0f}".replace("-0", "0")
            color = "white" if dark else INK
            panel.text(head, layer, text, ha="center", va="center", fontsize=8, color=color)


# --- Agreement ------------------------------------------------------------------------------------


def agreement(data: Data) -> Figure:
    """Two matrices, methods by methods: overlap of circuits, and correlation of scores."""
    labels = [variant["label"] for variant in data["variants"].values()]
    height = 1.9 + 0.3 * len(labels)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    overlaps = summary.agreement(data, lambda a, b: summary.shared(data, a, b).corrected)
    ranks = summary.agreement(data, partial(summary.correlated, data))
    _matrix(left, overlaps, labels, "overlap of circuits\n0: random sets, 1: one inside the other")
    _matrix(right, ranks, labels, "rank correlation of |scores|\n(Spearman)")
    left.set_yticks(range(len(labels)), labels)
    note = "Means over capabilities and splits. Boxed: the method with itself on other splits."
    figure.supxlabel(note, fontsize=8.5, color=INK)
    return _titled(figure, _who_agrees(data, overlaps))


def _who_agrees(data: Data, overlaps: Matrix) -> str:
    names = list(data["variants"])
    masks = [i for i, name in enumerate(names) if "mask" in data["variants"][name]["method"]]
    others = [i for i, name in enumerate(names) if i not in masks and name != "random"]

    def mean(first: Sequence[int], second: Sequence[int]) -> float:
        return float(np.mean([overlaps[i, j] for i in first for j in second if i != j]))

    if not masks or len(others) < 2:
        return "How far the methods' circuits agree"
    among, across = mean(others, others), mean(others, masks)
    return (
        f"Circuits of patching and gradient methods overlap by {among:.2f} beyond chance among "
        f"themselves, with those of masks by {across:.2f}"
    )


def _matrix(panel: Axes, values: Matrix, labels: Sequence[str], title: str) -> None:
    panel.imshow(np.clip(values, 0, 1), cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    panel.set_title(title, fontsize=9)
    panel.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = _brief(value)
            color = "white" if value > 0.75 else INK
            panel.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    for i in range(len(labels)):
        box = Rectangle((i - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, lw=0.9)
        panel.add_patch(box)


def _brief(value: float) -> str:
    """Two decimals without the leading zero."""
    text = f"{value:.2f}"
    if text.strip("-") in ("0.00", "1.00"):
        return text[-4] if text != "-1.00" else "-1"
    return text.replace("0.", ".", 1)


# --- Necessity and sufficiency --------------------------------------------------------------------


def roles(data: Data) -> Figure:
    """One panel a capability: each head by what is lost without it and by what it does alone."""
    figure, panels, spare = _panels(data, 2.9, share=True)
    found = data["tasks"].values()
    edge = 1.12 * max(max(*one["necessity"], *one["sufficiency"]) for one in found)
    low = min(min(*one["necessity"], *one["sufficiency"]) for one in found)
    low = min(low, 0.0) - 0.04 * edge
    for task, panel in panels.items():
        panel.plot([0, edge], [0, edge], color=FAINT, lw=0.7, dashes=(4, 3), zorder=1)
        panel.set_xlim(low, edge)
        panel.set_ylim(low, edge)
        _heads(panel, data, task, edge)
        panel.set_xlabel("sufficiency: kept by the head alone")
        panel.set_ylabel("necessity: lost without it")
    spare.text(
        0.02,
        0.85,
        "Shares of the whole effect.\n\nOn the dashed line a head alone does as\nmuch as is missed "
        "without it. On the left\nedge it is a link of a chain: missed, and\n"
        "worth nothing alone.\n\n"
        f"Blue: {summary.NOTABLE:.0%} or more on either axis; at most {_NAMED} named.",
        transform=spare.transAxes,
        va="top",
        fontsize=8.5,
        linespacing=1.4,
    )
    return _titled(figure, _alone(data))


def _alone(data: Data) -> str:
    best = {task: max(found["sufficiency"]) for task, found in data["tasks"].items()}
    chains = [task for task, value in best.items() if value < summary.NOTABLE / 10]
    top = max(best, key=lambda task: best[task])
    if not chains:
        return f"Alone, a head does at most {best[top]:.0%} of its capability ({top})"
    return (
        f"In {_listed(chains)} no head does anything alone; the most any head does alone is "
        f"{best[top]:.0%} ({top})"
    )


def _heads(panel: Axes, data: Data, task: str, edge: float) -> None:
    found = data["tasks"][task]
    x, y = np.array(found["sufficiency"]), np.array(found["necessity"])
    named = np.maximum(x, y) >= summary.NOTABLE
    panel.scatter(x[~named], y[~named], s=12, color=_GREY, lw=0, zorder=2)
    panel.scatter(x[named], y[named], s=18, color=_BLUE, lw=0, zorder=3)
    largest = sorted(np.flatnonzero(named).tolist(), key=lambda i: -max(x[i], y[i]))
    labelled = largest[:_NAMED]
    heights = _apart([float(y[i]) for i in labelled], 0.058 * edge)
    for i, height in zip(labelled, heights, strict=True):
        panel.annotate(
            data["members"][i],
            (x[i], y[i]),
            (x[i] + 0.09 * edge, height),
            va="center",
            fontsize=7.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": FAINT, "shrinkA": 0, "shrinkB": 2},
        )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """`heights`, moved as little as a few rounds of pushing need until all are `gap` apart."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = [heights[i] for i in order]
    for _ in range(200):
        for below in range(len(moved) - 1):
            push = (gap - (moved[below + 1] - moved[below])) / 2
            if push > 1e-9:
                moved[below] -= push
                moved[below + 1] += push
    result = [0.0] * len(heights)
    for place, i in enumerate(order):
        result[i] = moved[place]
    return result


# --- Layout ---------------------------------------------------------------------------------------


def _panels(
    data: Data, height: float, *, share: bool = False
) -> tuple[Figure, dict[str, Axes], Axes]:
    """A panel for each capability, and a spare one, without axes, for the key."""
    tasks = list(data["tasks"])
    rows = len(tasks) // _COLUMNS + 1
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(_WIDTH, height * rows + 0.5), layout=layout)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flatten().tolist()
    for panel in axes[len(tasks) :]:
        panel.set_axis_off()
    panels = dict(zip(tasks, axes, strict=False))
    for task, panel in panels.items():
        panel.set_title(task, loc="left", fontweight="bold")
        if share:
            panel.set_aspect("equal")
    return figure, panels, axes[len(tasks)]


def _titled(figure: Figure, title: str) -> Figure:
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5)
    return figure


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


FIGURES: Mapping[str, Callable[[Data], Figure]] = {
    "faithfulness": faithfulness,
    "importance": importance,
    "agreement": agreement,
    "roles": roles,
}
