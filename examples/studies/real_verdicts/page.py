"""What the study found, as the tables of docs/real.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from examples.studies.real_verdicts.changes import Shape

Data = Mapping[str, Any]
LARGE = 0.2  # of the margin: the default limit of readout.drop
POINTS = 0.1  # of the pairs: the default limit of accuracy.drop
ESTIMATES = ("readout.drop", "dcv.circuit", "dcv.head")


def _much(one: Data) -> bool:
    return lost(one)[0] > LARGE


def _head(one: Data) -> bool:
    return one["kind"] == "head" and "chosen" not in one


KINDS: Mapping[str, Callable[[Data], bool]] = {
    "one head damaged, chosen for what it costs": lambda one: "chosen" in one,
    "one head damaged, the first ten of each capability": _head,
    "of these, lost more than 20 % of the margin on other prompts": lambda one: (
        _head(one) and _much(one)
    ),
    "of these, lost less": lambda one: _head(one) and not _much(one),
    "nothing lost": lambda one: one["kind"] == "harmless",
    "damage outside attention": lambda one: one["kind"] == "outside",
    "of these, cost at least 10 points on other prompts": lambda one: (
        one["kind"] == "outside" and lost(one)[1] > POINTS - 1e-9
    ),
}


def lost(one: Data) -> tuple[float, float]:
    """The largest share of the margin, and of the pairs, that is lost on other prompts."""
    pairs = [(found["base"], found["tuned"]) for found in one["behaviour"].values()]
    margin = max(1 - now["margin"] / then["margin"] for then, now in pairs)
    return margin, max(then["right"] - now["right"] for then, now in pairs)


def outcome(one: Data) -> str:
    """`fail` where a limit fails, `pass` where all pass, else `abstain`."""
    found = {limit["outcome"] for limit in one["limits"]}
    return "fail" if "fail" in found else "pass" if found == {"pass"} else "abstain"


def named(one: Data, shape: Shape) -> str:
    """Of a head's damage: what the first member of a failing verdict, of `dcv.head` before others,
    has to do with it: `head`, `group`, `layer`, or the member's name; `-` where none is named."""
    layer, head = one["head"]
    failing = [each for each in one["limits"] if each["outcome"] == "fail" and each["subjects"]]
    if not failing:
        return "-"
    failing.sort(key=lambda each: each["limit"] != "dcv.head")
    first: str = failing[0]["subjects"][0]
    if first == f"L{layer}H{head}":
        return "head"
    if not first.startswith(f"L{layer}H"):
        return first
    same = shape.group(int(first.partition("H")[2])) == shape.group(head)
    return "group" if same else "layer"


def _summary(found: Data, shape: Shape) -> str:
    rows = ["| copies | | fail | abstain | pass | named first |", "|---|---|---|---|---|---|"]
    for title, among in KINDS.items():
        of = [one for one in found.values() if among(one)]
        told = [outcome(one) for one in of]
        places = [named(one, shape) for one in of if one["head"]]
        first = f"{places.count('head')} of {len(places)}" if places else ""
        rows.append(
            f"| {title} | {len(of)} | {told.count('fail')} | {told.count('abstain')} | "
            f"{told.count('pass')} | {first} |"
        )
    return "\n".join(rows)


def _all(found: Data, shape: Shape) -> str:
    rows = [
        "| copy | verdict | margin lost | points lost | readout.drop | dcv.circuit | dcv.head | "
        "limits that fail | named first |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        margin, points = lost(one)
        failing = [
            f"{each['circuit'].removeprefix('smollm2-135m-instruct-')} {each['limit']}"
            for each in one["limits"]
            if each["outcome"] == "fail"
        ]
        place = named(one, shape) if one["head"] else ""
        values = " | ".join(largest(one, limit) for limit in ESTIMATES)
        rows.append(
            f"| {name} | {outcome(one)} | {margin:.2f} | {points:.2f} | {values} | "
            f"{_few(failing)} | {place} |"
        )
    return "\n".join(rows)


def largest(one: Data, limit: str) -> str:
    """`0.25 [0.21, 0.29]`: a limit's estimate with its interval, in the circuit where it is
    largest; `-` where it has none."""
    values = [each["value"] for each in one["limits"] if each["limit"] == limit and each["value"]]
    if not values:
        return "-"
    value, low, high = max(values)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


BLOCKS: Mapping[str, Callable[[Data, Shape], str]] = {"summary": _summary, "copies": _all}
