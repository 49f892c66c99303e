"""Draws the results: the Pareto front, training, heads, and what stands at matched score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from examples.studies.drawing import FAINT, INK, write_figures
from examples.studies.reference.collecting import Record, Table, at_matched, group_of
from forgetguard.anatomy.members import Head
from forgetguard.errors import SpecificationError

# Okabe and Ito's colours: told apart with any colour vision; markers tell recipes apart without.
_LOOK: Mapping[str, tuple[str, str]] = {
    "sft": ("#D55E00", "o"),
    "sft-kl": ("#E69F00", "v"),
    "sft-replay": ("#009E73", "^"),
    "sft-circuit": ("#CC79A7", "P"),
    "sft-flow": ("#999933", "X"),
    "rl": ("#0072B2", "s"),
    "sft-rl": ("#56B4E9", "D"),
}
_ABSENT = "#EEEEEE"
_WIDTH = 10.5  # inches
_KEPT, _SCORE = "prior readout kept", "new-task score"


def draw(found: Table, folder: Path) -> list[Path]:
    """Write the figures to `folder`, as SVG; their paths."""
    return write_figures(FIGURES, found, folder, salt="reference suite")


def _figure(title: str, height: float) -> Figure:
    figure = Figure(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine())
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, weight="bold")
    return figure


def _look(group: str) -> tuple[str, str]:
    return _LOOK.get(group.partition(" from ")[0], (FAINT, "o"))


def _groups(found: Table) -> list[str]:
    return list(dict.fromkeys(map(group_of, found["checkpoints"])))


# --- the Pareto front --------------------------------------------------------------------------


def pareto(found: Table) -> Figure:
    """New-task score against what is kept: every checkpoint a point, ends large, matched ringed."""
    figure = _figure("What is kept against what is learned, every seed and checkpoint", 4.4)
    panels = figure.subplots(1, 2)
    for panel, (key, label) in zip(
        panels, (("kept", _KEPT), ("accuracy", "prior accuracy")), strict=True
    ):
        _points(panel, found, key)
        panel.set_xlabel(_SCORE)
        panel.set_ylabel(label)
        if found["target"] is not None:
            panel.axvline(found["target"], color=FAINT, lw=0.7, dashes=(4, 3), zorder=0)
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def _points(panel: Axes, found: Table, key: str) -> None:
    base = found["base"]
    panel.plot([base["score"]], [base[key]], "*", color=INK, ms=12, label="base")
    for group in _groups(found):
        color, marker = _look(group)
        own = [one for one in found["checkpoints"] if group_of(one) == group]
        own = [one for one in own if one[key] is not None]
        for final, size in ((False, 3.0), (True, 6.5)):
            some = [one for one in own if one["final"] == final]
            x, y = [one["score"] for one in some], [one[key] for one in some]
            label = group if final else None
            panel.plot(x, y, marker, color=color, ms=size, alpha=0.75, mew=0, label=label)
        rings = at_matched(found, group).values()
        for one in rings:
            if one[key] is not None:
                panel.plot([one["score"]], [one[key]], "o", mfc="none", mec=INK, ms=10, mew=0.8)


# --- over training -----------------------------------------------------------------------------


def training(found: Table) -> Figure:
    """Score, what is kept, and circuit DCV over the steps of SFT and RL, a line a run."""
    recipes = [one for one in ("sft", "rl", "sft-rl") if one in _recipes(found)]
    figure = _figure("Over training: a line a run, darker at a higher learning rate", 6.4)
    rows = (("score", _SCORE), ("kept", _KEPT), ("vulnerability", "circuit DCV"))
    panels = figure.subplots(len(rows), max(len(recipes), 1), squeeze=False, sharey="row")
    for column, recipe in enumerate(recipes):
        panels[0][column].set_title(recipe, loc="left")
        for row, (key, label) in enumerate(rows):
            _lines(panels[row][column], found, recipe, key)
            if column == 0:
                panels[row][column].set_ylabel(label)
        panels[-1][column].set_xlabel("steps")
    return figure


def _recipes(found: Table) -> set[str]:
    return {one["recipe"] for one in found["checkpoints"]}


def _lines(panel: Axes, found: Table, recipe: str, key: str) -> None:
    own = [one for one in found["checkpoints"] if one["recipe"] == recipe]
    rates = sorted({one["learning_rate"] for one in own})
    color = _look(recipe)[0]
    by_name = {(one["run"], one["step"]): one for one in found["checkpoints"]}
    for name in dict.fromkeys(one["run"] for one in own):
        run = sorted((one for one in own if one["run"] == name), key=lambda one: one["step"])
        began = by_name.get((run[0]["after"], run[0]["start"])) or found["base"]
        start = 0.0 if key == "vulnerability" and began is found["base"] else began[key]
        points = [(0, start), *((one["step"], one[key]) for one in run)]
        known = [(step, value) for step, value in points if value is not None]
        rank = rates.index(run[0]["learning_rate"]) + 1
        alpha = 0.25 + 0.75 * rank / len(rates)
        label = f"{run[0]['learning_rate']:g}"
        told = label not in panel.get_legend_handles_labels()[1]
        panel.plot(
            *zip(*known, strict=True), "-", color=color, alpha=alpha, lw=1.3,
            label=label if told else None,
        )  # fmt: skip
    if key == "score":
        panel.legend(frameon=False, fontsize=7.5, title="learning rate", title_fontsize=7.5)


# --- heads -------------------------------------------------------------------------------------


def heads(found: Table) -> Figure:
    """DCV by layer and head at matched score (at the end, where nothing matched), mean over seeds:
    a row a recipe, a column a circuit. Heads outside the circuit, or that abstain, are grey."""
    groups = _groups(found)
    circuits = list(dict.fromkeys(task for one in found["checkpoints"] for task in one["dcv"]))
    figure = _figure(
        "DCV by layer and head, mean over seeds at matched score", 1 + 1.3 * len(groups)
    )
    if not circuits:
        return figure
    shape = _shape(found)
    panels = figure.subplots(len(groups), len(circuits), squeeze=False)
    image = None
    for row, group in enumerate(groups):
        records = list(at_matched(found, group).values())
        told = group if records else f"{group} (end)"
        records = records or [
            one for one in found["checkpoints"] if group_of(one) == group and one["final"]
        ]
        for column, circuit in enumerate(circuits):
            panel = panels[row][column]
            image = _map(panel, records, circuit, shape)
            if row == 0:
                panel.set_title(circuit, fontsize=9)
            if column == 0:
                panel.set_ylabel(told, fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=panels, shrink=0.6, label="DCV")
    return figure


def _shape(found: Table) -> tuple[int, int]:
    """Layers and heads as far as any circuit reaches."""
    named = [
        _head(name)
        for one in found["checkpoints"]
        for circuit in one["dcv"].values()
        for name in circuit["heads"]
    ]
    known = [head for head in named if head is not None]
    return (
        1 + max((head.layer for head in known), default=0),
        1 + max((head.index for head in known), default=0),
    )


def _head(name: str) -> Head | None:
    """None for an MLP layer, which has no place among heads."""
    try:
        return Head.parse(name)
    except SpecificationError:
        return None


def _map(panel: Axes, records: Sequence[Record], circuit: str, shape: tuple[int, int]) -> Any:
    sums, counts = np.zeros(shape), np.zeros(shape)
    for one in records:
        for name, value in one["dcv"].get(circuit, {"heads": {}})["heads"].items():
            head = _head(name)
            if head is not None and value is not None:
                sums[head.layer, head.index] += value
                counts[head.layer, head.index] += 1
    mean = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    panel.set_facecolor(_ABSENT)
    image = panel.imshow(mean, cmap="RdBu_r", vmin=-0.5, vmax=0.5, aspect="auto")
    panel.set_xticks([])
    panel.set_yticks([])
    return image


# --- at matched score --------------------------------------------------------------------------


def matched(found: Table) -> Figure:
    """Each recipe at matched new-task score: every seed a point, the mean with its interval."""
    names = (
        "prior readout kept",
        "prior accuracy",
        "circuit DCV",
        "forward KL, new task",
        "weights moved",
    )
    target = found["target"]
    at = "no score that SFT and RL both reach" if target is None else f"score {target:.2f}"
    figure = _figure(f"At matched new-task score ({at}): seeds, mean and 95 % interval", 3.4)
    groups = [name for name, one in found["summaries"].items() if one[names[0]]["n"]]
    if not groups:
        return figure
    panels = figure.subplots(1, len(names), sharey=True)
    for panel, name in zip(panels, names, strict=True):
        for place, group in enumerate(groups):
            _summary(panel, found["summaries"][group][name], place, _look(group)[0])
        panel.set_title(name, fontsize=9)
        panel.set_yticks(range(len(groups)), groups)
        panel.set_ylim(len(groups) - 0.5, -0.5)
    return figure


def _summary(panel: Axes, one: Mapping[str, Any], place: int, color: str) -> None:
    if one["value"] is None:
        return
    panel.plot(
        one["values"], [place] * len(one["values"]), "o", color=color, ms=4, alpha=0.6, mew=0
    )
    panel.plot([one["value"]], [place], "|", color=INK, ms=12)
    if one["low"] is not None:
        panel.plot([one["low"], one["high"]], [place, place], "-", color=color, lw=1, alpha=0.7)


FIGURES: Mapping[str, Callable[[Table], Figure]] = {
    "pareto": pareto,
    "training": training,
    "heads": heads,
    "matched": matched,
}
