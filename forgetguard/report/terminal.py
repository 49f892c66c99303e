"""Verdicts as lines of text: one failure in full, or all limits of a run as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forgetguard.gate.verdict import Estimate, HeadEvidence, PairEvidence, Verdict

LABELS = {
    "pass": "pass",
    "fail": "FAIL",
    "abstain": "ABSTAIN",
    "error": "ERROR",
    "skipped": "SKIPPED",
    "recorded": "RECORDED",
    "ungated": "UNGATED",
}
WORST_SHOWN = 5
_LARGE = 1000.0
_TEXT_WIDTH = 160


def number(value: float) -> str:
    """Three significant digits with the sign where it is negative; whole numbers from 1000 on."""
    if math.isfinite(value) and abs(value) >= _LARGE:
        return f"{value:.0f}"
    return f"{value + 0.0:.3g}"  # + 0.0 turns -0.0 into 0.0


def interval(estimate: Estimate) -> str:
    """`0.31 [0.24, 0.39]`."""
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def quantity(limit: str) -> str:
    """What a limit bounds, in words: `DCV` for `dcv.circuit` and `dcv.head`, else its own name."""
    measure = limit.removesuffix(".over_baseline").removesuffix(".over_reference")
    return "DCV" if measure.split(".")[0] == "dcv" else measure.replace(".", " ")


def measured(verdict: Verdict) -> str:
    """`DCV 0.31 [0.24, 0.39]`, `L5H3 DCV 0.31 [0.24, 0.39]`, or that there is no value."""
    if verdict.estimate is None:
        return "no value"
    head = f"{verdict.head} " if verdict.head else ""
    floored = "floored " if _is_floored(verdict) else ""
    return f"{head}{floored}{quantity(verdict.limit)} {interval(verdict.estimate)}"


def _is_floored(verdict: Verdict) -> bool:
    """Whether what was held to the limit is not the head's plain DCV: the head is worth too little
    (gate/head_family.py)."""
    return any(
        head.head == verdict.head and head.dcv != verdict.estimate for head in verdict.worst_heads
    )


def headline(verdict: Verdict) -> str:
    """The verdict in one line."""
    label = LABELS[verdict.outcome.value]
    if verdict.estimate is None:
        return f"{label}: {verdict.reason} ({verdict.circuit} {verdict.limit})"
    return (
        f"{label}: {measured(verdict)}, allowed {number(verdict.bound)} "
        f"({verdict.circuit} {verdict.limit})"
    )


def failure_lines(verdict: Verdict, rerun: str | None = None) -> list[str]:
    """The verdict with its evidence: worst heads, the prompt pairs hurt most (not where there is no
    value: then nothing was there to be hurt), notes, where the limit was declared and, where given,
    the command that runs only this again."""
    lines = [headline(verdict)]
    if verdict.estimate is not None:
        lines.append(f"  {verdict.reason}")
    lines.append(f"  capability {verdict.capability}{_basis(verdict)}")
    lines += [f"  {line}" for line in (_power(verdict), controls(verdict)) if line]
    if verdict.worst_heads:
        lines += ["", f"  worst heads{_shown(verdict.worst_heads)}"]
        lines += _head_lines(verdict.worst_heads[:WORST_SHOWN])
    if verdict.worst_pairs and verdict.estimate is not None:
        lines += ["", f"  prompt pairs hurt most{_shown(verdict.worst_pairs)}"]
        for pair in verdict.worst_pairs[:WORST_SHOWN]:
            lines += _pair_lines(pair)
    if verdict.notes:
        lines += ["", "  notes", *(f"    {note}" for note in verdict.notes)]
    if verdict.file:
        place = f"{verdict.file}:{verdict.line}" if verdict.line else verdict.file
        lines += ["", f"  declared in {place}"]
    if rerun:
        lines += [f"  run only this: {rerun}"]
    return lines


def _basis(verdict: Verdict) -> str:
    estimate = verdict.estimate
    if estimate is None:
        return ""
    budget = verdict.budget
    drawn = f"{estimate.n} of at most {budget}" if budget is not None else f"{estimate.n}"
    return f", {drawn} prompt pairs, {number(100 * estimate.confidence)} % interval"


def _power(verdict: Verdict) -> str:
    """The smallest detectable damage, in one line; nothing where it is not known."""
    if verdict.detectable is None:
        return ""
    among = f", as one of {verdict.family} limits" if verdict.family > 1 else ""
    return f"would fail 80 % of the time from {number(verdict.detectable)} on{among}"


def controls(verdict: Verdict) -> str:
    """What other heads read, in one line; nothing where no controls were asked for."""
    if not verdict.controls:
        return ""
    read = [(one, one.dcv.value) for one in verdict.controls if one.dcv is not None]
    if not read or verdict.estimate is None:
        return f"controls: nothing to compare ({verdict.controls[0].note or 'no value'})"
    drawn = [(one, value) for one, value in read if one.name.startswith("random ")]
    others = [(one, value) for one, value in read if not one.name.startswith("random ")]
    parts = [f"{one.name} {number(value)}{_in_brackets(one.note)}" for one, value in others]
    if drawn:
        least, most = min(value for _, value in drawn), max(value for _, value in drawn)
        several = len(drawn) > 1
        spread = f"{number(least)} to {number(most)}" if several else number(most)
        sets = f"{len(drawn)} random sets" if several else "a random set"
        parts.insert(0, f"{sets} {spread}{_in_brackets(drawn[0][0].note)}")
    value = verdict.estimate.value
    above = sum(other >= value for _, other in read)
    rank = f"reached by {above} of {len(read)}" if above else "more than any"
    return f"controls: {', '.join(parts)}; this circuit {number(value)}, {rank}"


def _in_brackets(note: str) -> str:
    return f" ({note})" if note else ""


def _shown(evidence: Sequence[object]) -> str:
    return f" ({WORST_SHOWN} of {len(evidence)})" if len(evidence) > WORST_SHOWN else ""


def _head_lines(heads: Sequence[HeadEvidence]) -> list[str]:
    rows = [
        (
            head.head,
            f"DCV {interval(head.dcv)}" if head.dcv else "DCV not measurable",
            f"own damage {number(head.own.value)}" if head.own else "",
            f"importance {interval(head.importance)}",
            head.note,
        )
        for head in heads
    ]
    return [f"    {line}" for line in aligned(rows)]


def _pair_lines(pair: PairEvidence) -> list[str]:
    against = f" against {quoted(pair.distractor)}" if pair.distractor is not None else ""
    return [
        f"    readout {number(pair.base)} -> {number(pair.patched)} with the tuned heads "
        f"(loses {number(pair.loss)}; the tuned model reads {number(pair.tuned)})",
        f"      clean          {quoted(pair.clean)}",
        f"      counterfactual {quoted(pair.counterfactual)}",
        f"      answer         {quoted(pair.answer)}{against}",
    ]


def quoted(text: str) -> str:
    """A prompt on one line, spaces and line breaks visible, its beginning left out when long."""
    shown = text if len(text) <= _TEXT_WIDTH else "..." + text[-_TEXT_WIDTH:]
    return repr(shown)


@dataclass(frozen=True, slots=True)
class Row:
    """One limit in the summary table. `outcome` is a key of `LABELS`."""

    circuit: str
    limit: str
    measured: str
    bound: str
    outcome: str


def verdict_row(verdict: Verdict) -> Row:
    """The verdict as a row of the summary table."""
    return Row(
        circuit=verdict.circuit,
        limit=verdict.limit,
        measured=measured(verdict),
        bound=f"<= {number(verdict.bound)}",
        outcome=verdict.outcome.value,
    )


def table(rows: Sequence[Row]) -> list[str]:
    """The rows under a header, columns aligned."""
    header = ("circuit", "limit", "measured", "allowed", "verdict")
    cells = [(row.circuit, row.limit, row.measured, row.bound, LABELS[row.outcome]) for row in rows]
    return aligned([header, *cells])


def totals(outcomes: Iterable[str], *, not_run: int = 0) -> str:
    """`2 pass, 1 fail, 1 not run`: pass always, the others where there are any."""
    counted = dict.fromkeys(LABELS, 0)
    for outcome in outcomes:
        counted[outcome] += 1
    parts = [f"{count} {name}" for name, count in counted.items() if count or name == "pass"]
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
