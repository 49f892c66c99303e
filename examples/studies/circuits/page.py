"""The numbers of docs/circuits.md: each table is rendered from the study's data into its place
between two markers, so that text and data cannot drift apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from examples.studies.circuits import summary
from examples.studies.circuits.summary import Data, Record, Spread, spread
from examples.studies.comparison.overlap import Overlap
from examples.studies.pages import fill_blocks
from forgetguard.measures.ablation import ABLATIONS


def fill(page: str, data: Data) -> str:
    """The page with every block between `<!-- study: NAME -->` and `<!-- end -->` rendered anew.

    Raises:
        SpecificationError: the page asks for a block that there is not, or for none.
    """

    def render(name: str) -> str:
        return BLOCKS[name](data) if _has(data, name) else "(not measured)"

    return fill_blocks(page, "study", BLOCKS, render)


def bare(data: Data) -> str:
    """A page for a base that nobody has written about yet: the figures and all blocks."""
    parts = [f"# Circuits of {data['base']}"]
    parts += [f"![{name}](circuits/{name}.svg)" for name in FIGURES]
    parts += [f"<!-- study: {name} -->\n<!-- end -->" for name in BLOCKS if _has(data, name)]
    return fill("\n\n".join(parts) + "\n", data)


# --- Blocks ---------------------------------------------------------------------------------------


def _setup(data: Data) -> str:
    n = len(data["members"])
    skipped = "".join(f" Left out: {reason}." for reason in data["skipped"].values())
    return (
        f"`{data['base']}`, {n} heads, {len(data['tasks'])} capabilities, {data['pairs']} prompt "
        f"pairs each ({data['pairs'] // 2} to rank, {data['pairs'] - data['pairs'] // 2} to cut), "
        f"{data['seeds']} splits. {summary.minutes(data):.1f} minutes of processor time on "
        f"{data['threads']} thread{'s' * (data['threads'] > 1)} for all rankings and curves."
        f"{skipped}"
    )


def _methods(data: Data) -> str:
    rows = []
    for key, variant in data["variants"].items():
        found = summary.records(data, key)
        time = summary.relative_time(data, key)
        seeds = [summary.shared(data, *pair) for pair in summary.seed_pairs(data, key)]
        halves = [summary.shared(data, *pair) for pair in summary.half_pairs(data, key)]
        rows.append(
            [
                variant["label"],
                _ranged(spread(one["size"] for one in found), "{:.0f}", "{:.1f}"),
                _mean(spread(one["cpr"] for one in found)),
                _mean(spread(one["cmd"] for one in found)),
                "-" if time is None or key == "random" else f"{time:.2g}x",
                *_overlaps(seeds),
                *_overlaps(halves),
            ]
        )
    head = "method|heads|CPR|CMD|time|seeds: Jaccard|beyond chance|halves: Jaccard|beyond chance"
    return _table(head.split("|"), rows)


def _overlaps(found: Sequence[Overlap]) -> tuple[str, str]:
    return (
        _ranged(spread(one.jaccard for one in found)),
        _ranged(spread(one.corrected for one in found)),
    )


def _sizes(data: Data) -> str:
    def cell(found: Sequence[Record]) -> str:
        sizes = _ranged(spread(one["size"] for one in found), "{:.0f}", "{:.1f}")
        return f"{sizes}, {_mean(spread(map(summary.faithfulness_of, found)))}"

    return _by_task(data, data["variants"], cell)


def _areas(data: Data) -> str:
    def cell(found: Sequence[Record]) -> str:
        cpr, cmd = (spread(one[name] for one in found) for name in ("cpr", "cmd"))
        return f"{_mean(cpr)} / {_mean(cmd)}"

    return _by_task(data, data["variants"], cell)


def _selections(data: Data) -> str:
    def cell(found: Sequence[Record]) -> str:
        sizes = _ranged(spread(len(one["selected"]) for one in found), "{:.0f}", "{:.1f}")
        return f"{sizes}, {_mean(spread(one['selected_faithfulness'] for one in found))}"

    return _by_task(data, _masks(data), cell)


def _cuts(data: Data) -> str:
    """What the mask that changes the answer selects."""
    rows = []
    for task in data["tasks"]:
        found = summary.records(data, "masking", task)
        always = frozenset.intersection(*(frozenset(one["selected"]) for one in found))
        sometimes = frozenset.union(*(frozenset(one["selected"]) for one in found)) - always
        change = spread(one["change"] for one in found)
        rows.append(
            [
                task,
                _names(data, sorted(always)),
                _names(data, sorted(sometimes)),
                "-" if change is None else f"{math.exp(-change.mean):.1%}",
                _mean(spread(one["selected_faithfulness"] for one in found)),
            ]
        )
    head = "capability|on every split|on some splits|the counterfactual's answer|faithfulness"
    return _table(head.split("|"), rows)


def _circuits(data: Data) -> str:
    rows = []
    for task, found in data["tasks"].items():
        always, sometimes = summary.always_and_sometimes(data, task)
        rows.append(
            [
                task,
                f"{found['whole']:.1f}",
                f"{found['accuracy']:.3f}",
                _names(data, always),
                _names(data, sometimes),
            ]
        )
    head = ["capability", "whole effect (nats)", "accuracy", "on every split", "on some splits"]
    return _table(head, rows)


def _attribution(data: Data) -> str:
    rows = []
    for task in data["tasks"]:
        found = summary.records(data, "attribution", task)
        missed = sorted({name for one in found for name in one["missed"]})
        rows.append(
            [
                task,
                _ranged(spread(one["correlation"] for one in found)),
                _ranged(spread(len(one["missed"]) for one in found), "{:.0f}", "{:.1f}"),
                " ".join(missed) or "none",
            ]
        )
    return _table(["capability", "correlation", "heads missed", "which, on any split"], rows)


def _ablations(data: Data) -> str:
    rows = []
    for task, found in data["tasks"].items():
        row = [task]
        for kind in ABLATIONS:
            row.append(_ranged(spread(one[kind]["value"] for one in found["ablated"])))
        row.append(_further([one["mean"]["further"] for one in found["ablated"]]))
        rows.append(row)
    return _table(["capability", *ABLATIONS, "mean, with one head more"], rows)


def _further(found: Sequence[tuple[str, float] | None]) -> str:
    """The heads that bring the most, and the mean faithfulness with them."""
    known = [one for one in found if one is not None]
    names = " or ".join(sorted({name for name, _ in known}))
    return f"{_mean(spread(value for _, value in known))} with {names}" if known else "-"


def _roles(data: Data) -> str:
    rows = []
    for task, found in data["tasks"].items():
        necessity, sufficiency = found["necessity"], found["sufficiency"]
        first = summary.by_necessity(data, task)[0]
        best = max(range(len(sufficiency)), key=lambda i: sufficiency[i])
        notable = [value for value in necessity if abs(value) >= summary.NOTABLE]
        rows.append(
            [
                task,
                f"{data['members'][first]} {necessity[first]:.2f}",
                str(len(notable)),
                f"{sum(necessity):.2f}",
                f"{data['members'][best]} {sufficiency[best]:.3f}",
            ]
        )
    head = ["capability", "most necessary", f"heads from {summary.NOTABLE:g} on", "sum over heads"]
    return _table([*head, "most sufficient"], rows)


BLOCKS: Mapping[str, Callable[[Data], str]] = {
    "setup": _setup,
    "methods": _methods,
    "sizes": _sizes,
    "areas": _areas,
    "selections": _selections,
    "cuts": _cuts,
    "circuits": _circuits,
    "attribution": _attribution,
    "ablations": _ablations,
    "roles": _roles,
}
# Blocks about one variant, which a study may have left out.
_ABOUT: Mapping[str, str] = {"cuts": "masking", "attribution": "attribution"}
FIGURES = ("faithfulness", "importance", "agreement", "roles")


def _has(data: Data, block: str) -> bool:
    return _ABOUT.get(block, "activation") in data["variants"]


# --- Cells ----------------------------------------------------------------------------------------


def _masks(data: Data) -> list[str]:
    return [
        key
        for key in data["variants"]
        if any("selected" in one for one in summary.records(data, key))
    ]


def _by_task(data: Data, variants: Iterable[str], cell: Callable[[Sequence[Record]], str]) -> str:
    rows = [
        [
            data["variants"][key]["label"],
            *(cell(summary.records(data, key, task)) for task in data["tasks"]),
        ]
        for key in variants
    ]
    return _table(["method", *data["tasks"]], rows)


def _names(data: Data, places: Iterable[int]) -> str:
    return " ".join(data["members"][i] for i in places) or "none"


def _mean(found: Spread | None, form: str = "{:.2f}") -> str:
    return "-" if found is None else _signed(form, found.mean)


def _ranged(found: Spread | None, form: str = "{:.2f}", mean: str = "{:.2f}") -> str:
    """The mean, and the range where there is one."""
    if found is None:
        return "-"
    low, high = (_signed(form, value) for value in (found.low, found.high))
    return low if low == high else f"{_signed(mean, found.mean)} ({low} to {high})"


def _signed(form: str, value: Any) -> str:
    text = form.format(value)
    return text.removeprefix("-") if float(text) == 0 else text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])
