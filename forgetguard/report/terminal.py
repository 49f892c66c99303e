"""Verdicts as lines of text: one failure in full, or all limits of a run as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from forgetguard.gate.verdict import Code, Outcome, UnitEvidence, Verdict
from forgetguard.report.wording import (
    controls,
    interval,
    note,
    number,
    origin_line,
    quantity,
    reason,
    units_of,
)

LABELS = {
    "pass": "pass",
    "fail": "FAIL",
    "abstain": "ABSTAIN",
    "error": "ERROR",
    "skipped": "SKIPPED",
    "recorded": "RECORDED",
    "not_had": "NOT HAD",
    "ungated": "UNGATED",
}
WORST_SHOWN = 5
UNITS_SHOWN = 3
_TEXT_WIDTH = 160
_OF_A_PASS = ("fixed_prompts",)  # what a failure rests on, whoever has seen the prompts


def measured(verdict: Verdict) -> str:
    """`DCV 0.31 [0.24, 0.39]`, `L5H3 DCV 0.31 [0.24, 0.39]`, or that there is no value."""
    if verdict.estimate is None:
        return "no value"
    subject = f"{verdict.subject} " if verdict.subject else ""
    floored = "floored " if verdict.facts.get("over", "itself") != "itself" else ""
    by_name = " by name" * (verdict.code is Code.SAME_FUNCTION and not verdict.facts["matches"])
    return f"{subject}{floored}{quantity(verdict.limit)}{by_name} {interval(verdict.estimate)}"


def headline(verdict: Verdict) -> str:
    """The verdict in one line."""
    label = LABELS[verdict.outcome.value]
    if verdict.estimate is None:
        return f"{label}: {reason(verdict)} ({verdict.circuit} {verdict.limit})"
    return (
        f"{label}: {measured(verdict)}, allowed {number(verdict.bound)} "
        f"({verdict.circuit} {verdict.limit})"
    )


def failure_lines(
    verdict: Verdict, rerun: str | None = None, origin: Mapping[str, Any] | None = None
) -> list[str]:
    """The verdict with its evidence: where the loss came from (of a failed one, where that was
    measured), worst heads, notes, the prompt pairs hurt most (none where
    there is no value: then nothing was there to be hurt), where the limit was declared and, where
    given, the command that runs only this again."""
    lines = [headline(verdict)]
    if verdict.estimate is not None:
        lines.append(f"  {reason(verdict)}")
    basis = rests_on(verdict)
    if verdict.capability or basis:
        capability = f"capability {verdict.capability}" * bool(verdict.capability)
        lines.append(f"  {', '.join(part for part in (capability, basis) if part)}")
    lines += [f"  {line}" for line in (power(verdict), controls(verdict)) if line]
    if origin is not None and verdict.outcome is Outcome.FAIL:
        lines.append(f"  {origin_line(origin)}")
    if verdict.subjects:
        lines += ["", *_subject_lines(verdict)]
    notes = [one for one in verdict.notes if one.code not in _OF_A_PASS]
    if notes:
        lines += ["", "  notes", *(f"    {note(one, verdict.limit)}" for one in notes)]
    if verdict.units and verdict.estimate is not None:
        lines += ["", f"  {hurt_title(verdict)}"]
        paired = by_readout(verdict)
        for one in verdict.units[:UNITS_SHOWN]:
            lines += _unit_lines(one, paired)
    if verdict.file:
        place = f"{verdict.file}:{verdict.line}" if verdict.line else verdict.file
        lines += ["", f"  declared in {place}"]
    if rerun:
        lines += [f"  run only this: {rerun}"]
    return lines


def rests_on(verdict: Verdict) -> str:
    """`64 prompt pairs, 90 % interval`; nothing where there is no value."""
    estimate = verdict.estimate
    if estimate is None:
        return ""
    if estimate.n == 0:
        return "exact"
    budget = verdict.budget
    drawn = f"{estimate.n} of at most {budget}" if budget is not None else f"{estimate.n}"
    units = "prompt pairs" if units_of(verdict.limit) == "pairs" else units_of(verdict.limit)
    return f"{drawn} {units}, {number(100 * estimate.coverage)} % interval"


def units_title(verdict: Verdict) -> str:
    """`layers`, `matrices`: what the parts of a limit are called."""
    names = {one.subject for one in verdict.subjects}
    return "layers" if all(name.startswith("layer ") for name in names) else "parts"


def power(verdict: Verdict) -> str:
    """The smallest detectable damage, in one line; nothing where it is not known."""
    if verdict.detectable is None:
        return ""
    among = f", as one of {verdict.family} limits" if verdict.family > 1 else ""
    sparse = verdict.facts.get("detectable_sparse")
    uneven = ""
    if sparse is not None and number(sparse) != number(verdict.detectable):
        units = units_of(verdict.limit)
        uneven = f" (from {number(sparse)} on where a few {units} carry all the damage)"
    return f"would fail 80 % of the time from {number(verdict.detectable)} on{among}{uneven}"


def by_readout(verdict: Verdict) -> bool:
    """Whether its units are prompt pairs that lost readout, and not prompts that lost otherwise."""
    return verdict.units[0].answer is not None and units_of(verdict.limit) != "prompts"


def hurt_title(verdict: Verdict, most: int = UNITS_SHOWN) -> str:
    """What the first `most` units of a verdict are."""
    what = "prompt pairs" if by_readout(verdict) else "prompts"
    lost = verdict.facts.get("lost")
    if lost is None:
        return f"{what} hurt most"
    shown = min(len(verdict.units), most)
    return f"{what} that are no longer answered right ({shown} of {lost})"


def _subject_lines(verdict: Verdict) -> list[str]:
    """The worst of them; those that lost exactly nothing are only counted."""
    heads = verdict.subjects[0].scale is not None
    what = "DCV" if heads else quantity(verdict.limit)
    touched = [one for one in verdict.subjects if one.value is None or any(one.value.interval)]
    untouched = len(verdict.subjects) - len(touched)
    count = f" ({WORST_SHOWN} of {len(touched)})" if len(touched) > WORST_SHOWN else ""
    none = f"; {untouched} lost nothing" if untouched else ""
    title = f"  worst {'heads' if heads else units_title(verdict)}{count}{none}"
    rows = [
        (
            one.subject,
            f"{what} {interval(one.value)}" if one.value else f"{what} not measurable",
            f"own damage {number(one.own.value)}" if one.own else "",
            f"importance {interval(one.scale)}" if one.scale else "",
            "; ".join(note(each) for each in one.notes),
        )
        for one in touched[:WORST_SHOWN]
    ]
    return [title, *(f"    {line}" for line in (aligned(rows) if rows else ()))]


def _unit_lines(unit: UnitEvidence, paired: bool) -> list[str]:
    if not paired or unit.base is None or unit.tuned is None or unit.answer is None:
        return [f"    {number(unit.loss)}  {quoted(unit.clean)}"]
    against = f" against {quoted(unit.distractor)}" if unit.distractor is not None else ""
    now, alone = number(unit.tuned), "" if unit.patched is None else number(unit.patched)
    heads = f" ({alone} with only its heads)" if alone not in ("", now) else ""
    return [
        f"    {quoted(unit.clean)}",
        f"      answer {quoted(unit.answer)}{against}: readout {number(unit.base)} -> {now}{heads}",
        *_says(unit),
    ]


def _says(unit: UnitEvidence) -> list[str]:
    if unit.base_says is None or unit.tuned_says is None:
        return []
    if unit.base_says == unit.tuned_says:
        return [f"      both say {quoted(unit.tuned_says)}"]
    return [f"      base says {quoted(unit.base_says)}, tuned {quoted(unit.tuned_says)}"]


def quoted(text: str) -> str:
    """A prompt on one line, spaces and line breaks visible, its beginning left out when long."""
    shown = text if len(text) <= _TEXT_WIDTH else "..." + text[-_TEXT_WIDTH:]
    return repr(shown)


class Row(NamedTuple):
    """One limit in the summary table. `outcome` is a key of `LABELS`."""

    circuit: str
    limit: str
    measured: str
    bound: str
    outcome: str


def verdict_row(verdict: Verdict) -> Row:
    """The verdict as a row of the summary table."""
    bound = f"<= {number(verdict.bound)}"
    return Row(verdict.circuit, verdict.limit, measured(verdict), bound, verdict.outcome.value)


def table(rows: Sequence[Row]) -> list[str]:
    """The rows under a header, columns aligned."""
    header = ("circuit", "limit", "measured", "allowed", "verdict")
    return aligned([header, *(row._replace(outcome=LABELS[row.outcome]) for row in rows)])


def totals(outcomes: Iterable[str], *, not_run: int = 0) -> str:
    """`2 pass, 1 fail, 1 not run`: pass always, the others where there are any."""
    counted = dict.fromkeys(LABELS, 0)
    for outcome in outcomes:
        counted[outcome] += 1
    told = ((name.replace("_", " "), count) for name, count in counted.items())
    parts = [f"{count} {name}" for name, count in told if count or name == "pass"]
    return ", ".join([*parts, *([f"{not_run} not run"] if not_run else [])])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines, two spaces between columns, nothing trailing. Columns that
    are empty throughout are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    rows = list(zip(*columns, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
