"""What the study found, as the tables of docs/real.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from examples.studies.real_verdicts.changes import Shape

Data = Mapping[str, Any]
KINDS = {
    "head": "one head damaged",
    "harmless": "nothing lost",
    "outside": "damage outside attention",
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
    for kind, title in KINDS.items():
        of = [one for one in found.values() if one["kind"] == kind]
        told = [outcome(one) for one in of]
        places = [named(one, shape) for one in of if one["head"]]
        right = sum(place in ("head", "group", "layer") for place in places)
        rows.append(
            f"| {title} | {len(of)} | {told.count('fail')} | {told.count('abstain')} | "
            f"{told.count('pass')} | {f'{right} of {len(places)}' if places else ''} |"
        )
    return "\n".join(rows)


def _all(found: Data, shape: Shape) -> str:
    rows = [
        "| copy | verdict | margin lost | points lost | limits that fail | named first |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        margin, points = lost(one)
        failing = [
            f"{each['circuit'].removeprefix('smollm2-135m-instruct-')} {each['limit']}"
            for each in one["limits"]
            if each["outcome"] == "fail"
        ]
        place = named(one, shape) if one["head"] else ""
        rows.append(
            f"| {name} | {outcome(one)} | {margin:.2f} | {points:.2f} | {_few(failing)} | {place} |"
        )
    return "\n".join(rows)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


BLOCKS: Mapping[str, Callable[[Data, Shape], str]] = {"summary": _summary, "copies": _all}
