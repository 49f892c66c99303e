"""The numbers of a reference page: each table is rendered from the results into its place between
two markers, so that text and data cannot drift apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from examples.studies.pages import fill_blocks
from examples.studies.reference.collecting import METRICS, RATED, Record, Table, group_of
from examples.studies.reference.intervals import over_seeds

FIGURES = ("pareto", "training", "heads", "matched")
Rows: TypeAlias = Sequence[Sequence[str]]


def fill(page: str, found: Table) -> str:
    """The page, every block between `<!-- reference: NAME -->` and `<!-- end -->` rendered anew.

    Raises:
        SpecificationError: the page asks for a block that there is not, or for none.
    """
    return fill_blocks(page, "reference", BLOCKS, lambda name: BLOCKS[name](found))


def bare(found: Table) -> str:
    """A page that nobody has written about yet: the figures and all blocks."""
    parts = [f"# The reference suite: {found['plan']['preset']}"]
    for name in BLOCKS:
        parts.append(f"## {name.capitalize()}")
        parts += [f"![{name}](reference/{name}.svg)"] * (name in FIGURES)
        parts.append(f"<!-- reference: {name} -->\n<!-- end -->")
    parts += [f"![{name}](reference/{name}.svg)" for name in FIGURES if name not in BLOCKS]
    return fill("\n\n".join(parts) + "\n", found)


# --- blocks ----------------------------------------------------------------------------------


def _setup(found: Table) -> str:
    plan, base = found["plan"], found["base"]
    target = found["target"]
    pairs = " and ".join(f"`{ours}` with `{theirs}`" for ours, theirs in plan["compared"])
    at = (
        "No new-task score is reached by all of them on every seed, so nothing is matched."
        if target is None
        else f"Matched at a new-task score of {target:.2f} +- {plan['tolerance']:.2f} on "
        "validation questions (the highest that all of them reach with every seed at one learning "
        "rate, or the one given): each recipe at the lowest learning rate at which all seeds, or "
        "most, get there, each seed at the first checkpoint that does."
    )
    failed = found.get("failed", {})
    gone = "".join(f"\n- not there: {name}: {why}" for name, why in failed.items())
    return (
        f"`{plan['base']}`, {len(found['runs'])} runs ({', '.join(plan['recipes'])}), seeds "
        f"{', '.join(map(str, plan['seeds']))}, {len(found['checkpoints'])} checkpoints measured. "
        f"The base scores {_number(base['score'])} on the new task and {_number(base['accuracy'])} "
        f"on the prior capabilities. Claims about SFT and RL compare {pairs}. {at} Intervals are "
        f"two-sided 95 %: Student's t over "
        f"{len(plan['seeds'])} seeds, where not said otherwise.{gone}"
    )


def _claims(found: Table) -> str:
    rows, before = [], ""
    for one in found["claims"]:
        said = f"{one['says']} ({one['paper']})"
        numbers = "<br>".join(f"{part['name']}: {_interval(part)}" for part in one["numbers"])
        rows.append(["" if said == before else said, _pair(one), f"**{one['verdict']}**", numbers])
        before = said
    return _table(["claim", "on", "here", "number"], rows)


def _rules(found: Table) -> str:
    """How each claim is judged, once."""
    rules = {one["says"]: one["here"] for one in found["claims"]}
    return "\n".join(f"- *{says}* {rule}" for says, rule in rules.items()) or "(not judged)"


def _beside(found: Table) -> str:
    rows = [
        [one["key"], _pair(one), part["name"], _interval(part)]
        for one in found["claims"]
        for part in one["beside"]
    ]
    return _table(["claim", "on", "beside it", "number"], rows)


def _pair(claim: Record) -> str:
    return "" if claim["pair"] is None else " vs ".join(claim["pair"])


def _matched(found: Table) -> str:
    names = list(METRICS)
    rows = []
    for group, summary in found["summaries"].items():
        n = max(one["n"] for one in summary.values())
        asked = len(found["matched"][group])
        rows.append([group, f"{n} of {asked}", *(_interval(summary[name]) for name in names)])
    return _table(["recipe", "seeds matched", *names], rows)


def _seeds(found: Table) -> str:
    """Every seed's matched checkpoint."""
    by_name = {(one["run"], one["step"]): one for one in found["checkpoints"]}
    rows = []
    for group, seeds in found["matched"].items():
        for seed, chosen in seeds.items():
            one = by_name.get((chosen["run"], chosen["step"])) if chosen else None
            if one is None:
                rows.append([group, seed, "does not reach it", "", *["-"] * len(METRICS)])
            else:
                numbers = [_number(metric(one)) for metric in METRICS.values()]
                rows.append([group, seed, f"{one['learning_rate']:g}", str(one["step"]), *numbers])
    return _table(["recipe", "seed", "learning rate", "step", *METRICS], rows)


def _rates(found: Table) -> str:
    """What stands between two groups, for every pairing of their learning rates."""
    rows = []
    for one in found["rates"]:
        here = f"{len(one['seeds'])} of {len(found['plan']['seeds'])}"
        rates = [f"{rate:g}" for rate in one["rates"]]
        judged = "**yes**" if one["judged"] else ""
        numbers = [_interval(one["numbers"][name]) for name in RATED]
        rows.append([" vs ".join(one["pair"]), *rates, here, judged, *numbers])
    rates = ["rate of the first", "of the second"]
    return _table(["on", *rates, "seeds matched", "judged above", *RATED], rows)


def _recipes(found: Table) -> str:
    """The end of every run, by recipe and learning rate."""
    groups: dict[tuple[str, float], list[Record]] = {}
    for one in found["checkpoints"]:
        if one["final"]:
            groups.setdefault((group_of(one), one["learning_rate"]), []).append(one)
    rows = []
    for (group, rate), ends in groups.items():
        row = [group, f"{rate:g}", str(ends[0]["step"])]
        for metric in METRICS.values():
            known = [value for value in map(metric, ends) if value is not None]
            row.append(_spread(known))
        rows.append(row)
    return _table(["recipe", "learning rate", "steps", *METRICS], rows)


def _circuits(found: Table) -> str:
    rows = []
    for one in found["comparisons"]:
        for role, name in zip(("tuned", "reference"), one["pair"], strict=True):
            column = one["columns"][role]
            kept = column["retention"] or {}
            rows.append(
                [
                    one["task"],
                    str(one["seed"]),
                    name,
                    "/".join(map(str, column["sizes"])) or "-",
                    *(_number(kept.get(key)) for key in ("value", "chance", "corrected")),
                    _number((one["ceiling"] or {}).get("corrected")),
                    _number(kept.get("relative")),
                    _number(column["faithfulness"]),
                    _number(column["transfer"]),
                    " ".join((one["vulnerable"] or {}).get("members", []))
                    if role == "tuned"
                    else "",
                    kept.get("abstained") or "",
                ]
            )
    head = (
        "task|seed|model|heads|retention|by chance|beyond chance|ceiling|across halves / ceiling|"
        "faithfulness|transfer|C_vuln (against the other)|no evidence, as"
    )
    return _table(head.split("|"), rows)


BLOCKS: Mapping[str, Callable[[Table], str]] = {
    "setup": _setup,
    "claims": _claims,
    "rules": _rules,
    "beside": _beside,
    "matched": _matched,
    "rates": _rates,
    "seeds": _seeds,
    "recipes": _recipes,
    "circuits": _circuits,
}


# --- cells -----------------------------------------------------------------------------------


def _number(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _interval(one: Mapping[str, Any]) -> str:
    if one.get("value") is None:
        return "-"
    if one["low"] is None:
        return _number(one["value"])
    return f"{_number(one['value'])} ({_number(one['low'])} to {_number(one['high'])})"


def _spread(values: Sequence[float]) -> str:
    """The mean, and the range over seeds where there is one."""
    mean = over_seeds(values)["value"]
    if mean is None or min(values) == max(values):
        return _number(mean)
    return f"{_number(mean)} ({_number(min(values))} to {_number(max(values))})"


def _table(head: Sequence[str], rows: Rows) -> str:
    if not rows:
        return "(not measured)"
    rule = ["---", *["---:"] * (len(head) - 1)]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *cells])
