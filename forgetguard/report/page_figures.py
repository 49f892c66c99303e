"""Where the marks of the page's figures stand: intervals on the axis of their limit, and the map
of a circuit's heads. Numbers only; page.html draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from forgetguard.anatomy.members import Head, Mlp, parse_member
from forgetguard.gate.verdict import Estimate, SubjectEvidence

# What is drawn of the axis, in limits: 0 is nothing lost, 1 the limit. Beyond it marks are cut.
AXIS = (-0.5, 2.5)
_EDGE = 0.06  # of its width
# Lower edges of the classes of DCV that the map tells apart; below the first the tuned head serves
# the base better than its own.
CLASSES = (0.0, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Bar:
    """An estimate on the axis, as fractions of its width; `cut_*`: it goes on beyond the edge."""

    low: float
    value: float
    high: float
    cut_low: bool
    cut_high: bool


def on_axis(value: float) -> float:
    """Where `value`, in limits, stands, as a fraction of the axis; at its edge where beyond."""
    left, right = AXIS
    return round(min(max((value - left) / (right - left), 0.0), 1.0), 3)


def bar(estimate: Estimate, bound: float) -> Bar:
    """The estimate in units of its limit; where that is 0, of the farthest it may be from it."""
    return _bar(estimate, bound, _scale([estimate], bound))


def _scale(estimates: Iterable[Estimate], bound: float) -> float:
    ends = [end for one in estimates for end in (one.low, one.value, one.high)]
    far = max((abs(one) for one in ends if math.isfinite(one)), default=0.0)
    return abs(bound) or far or 1.0


def _bar(estimate: Estimate, bound: float, scale: float) -> Bar:
    ends = estimate.low, estimate.value, estimate.high
    low, value, high = (1 + (one - bound) / scale for one in ends)
    # The mark of a value that is beyond an edge leaves room for the arrow that says so.
    inside = min(max(on_axis(value), _EDGE), 1 - _EDGE)
    return Bar(
        min(on_axis(low), inside), inside, max(on_axis(high), inside), low < AXIS[0], high > AXIS[1]
    )


@dataclass(frozen=True, slots=True)
class Trend:
    """One limit over several runs on one axis, whose 1 is the largest `max` of them: of each run
    its estimate. steps: from which run on, by number, which `max` holds, as a fraction of the
    axis; one that changed begins half-way between two runs."""

    bars: tuple[Bar | None, ...]
    steps: tuple[tuple[float, float], ...]


def trend(points: Sequence[tuple[Estimate | None, float] | None]) -> Trend:
    """Of each run the estimate and the `max`; None where it did not judge the limit. At least one
    did."""
    estimates = [None if one is None else one[0] for one in points]
    bounds = [(at, one[1]) for at, one in enumerate(points) if one is not None]
    largest = max(bound for _, bound in bounds)
    scale = _scale(filter(None, estimates), largest)
    steps, before = [], (0, math.nan)
    for at, bound in bounds:
        if bound != before[1]:
            steps.append(((before[0] + at) / 2, on_axis(1 + (bound - largest) / scale)))
        before = at, bound
    bars = (None if one is None else _bar(one, largest, scale) for one in estimates)
    return Trend(tuple(bars), tuple(steps))


@dataclass(frozen=True, slots=True)
class Cell:
    """One head that is declared or was patched. kind: `class-0` and on by CLASSES, `better`,
    `unknown` (it was patched, and has no value), or `unpatched`."""

    layer: int
    row: int
    kind: str
    text: str
    declared: bool


@dataclass(frozen=True, slots=True)
class HeadMap:
    """Layers from left to right, heads from the top, MLP layers (where one is declared) below."""

    layers: int
    rows: int
    cells: tuple[Cell, ...]
    mlp: bool


def head_map(
    evidence: Iterable[SubjectEvidence], declared: Iterable[str], size: Mapping[str, int]
) -> HeadMap | None:
    """The map, or None where no head is declared. `size`: the model's, `layers` and `heads` a
    layer; what it does not say ends with the last that is named."""
    values: Mapping[str, SubjectEvidence] = {one.subject: one for one in evidence}
    wanted = tuple(map(parse_member, declared))
    known = {*wanted, *map(parse_member, values)}
    heads = [one for one in known if isinstance(one, Head)]
    if not (wanted and heads and values):
        return None
    layers = max(size.get("layers", 0), *(one.layer + 1 for one in known))
    count = max(size.get("heads", 0), *(one.index + 1 for one in heads))
    mlp = any(isinstance(one, Mlp) for one in wanted)
    members = (parse_member(name) for name in {**dict.fromkeys(map(str, wanted)), **values})
    cells = [
        Cell(
            member.layer,
            count if isinstance(member, Mlp) else member.index,
            *_shown(values.get(str(member))),
            member in wanted,
        )
        for member in members
    ]
    return HeadMap(layers, count + mlp, tuple(cells), mlp)


def _shown(one: SubjectEvidence | None) -> tuple[str, str]:
    if one is None:
        return "unpatched", ""
    if one.value is None or not math.isfinite(one.value.value):
        return "unknown", "?"
    value = one.value.value
    place = sum(value >= edge for edge in CLASSES) - 1
    text = f"{value + 0.0:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return (f"class-{place}" if place >= 0 else "better"), text.replace("0.", ".", 1)
