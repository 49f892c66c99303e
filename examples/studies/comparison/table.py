"""Comparisons as text, one table a capability, and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from examples.studies.comparison.agreement import agreement, shift_by_necessity, specialists
from examples.studies.comparison.mask_shift import mean_mask
from forgetguard.report.terminal import aligned
from forgetguard.report.wording import number

if TYPE_CHECKING:
    from examples.studies.comparison.result import Column, Comparison
    from examples.studies.comparison.retention import Agreement, Spread
    from forgetguard.anatomy.members import Member

SCHEMA = "forgetguard.comparison"
SCHEMA_VERSION = 2
WIDTH = 100
MOVED_SHOWN = 3
_NONE = "-"
_OURS = "*"


def comparison_text(comparison: Comparison) -> str:
    """The table of one capability, the heads of C_vuln, and what could not be said and why; no line
    is longer than 100 characters."""
    blocks = [
        _heading(comparison),
        aligned([("", *(column.role for column in comparison.columns)), *_rows(comparison)]),
        _vulnerable(comparison),
        _reasons(comparison),
        _wrapped(
            f"{_OURS} not of arXiv 2605.28860: a control or a correction of ours, or our reading "
            "of a quantity it does not define. Values are means over seeds with their range, which "
            "is no interval. Every row is explained in docs/comparison.md."
        ),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def comparisons_json(comparisons: Sequence[Comparison]) -> str:
    """All comparisons of a run as one JSON document."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "forgetguard": metadata.version("forgetguard"),
        "comparisons": [comparison.to_dict() for comparison in comparisons],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _heading(comparison: Comparison) -> list[str]:
    split = comparison.split
    lines = [f"{comparison.capability}"]
    for column in comparison.columns:
        lines += _wrapped(f"{column.role}: {column.checkpoint}", indent="  ")
    settings = " ".join(f"{name}={value}" for name, value in comparison.settings.items())
    lines += _wrapped(
        f"{split.learned_on} prompt pairs to learn masks on, {split.held_out} held out; "
        f"{comparison.heads} heads; seeds {' '.join(map(str, comparison.seeds))}; "
        f"readout {comparison.readout}; ablation {comparison.ablation}",
        indent="  ",
    )
    lines += _wrapped(settings, indent="  ")
    for note in comparison.notes:
        lines += _wrapped(note, indent="  ")
    return lines


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """(what, base, tuned[, reference])."""

    def row(what: str, cell: Callable[[Column], str]) -> tuple[str, ...]:
        return (what, *(cell(column) for column in comparison.columns))

    def title(text: str) -> tuple[str, ...]:
        return (text, *("" for _ in comparison.columns))

    ceiling, base = comparison.ceiling, comparison.column("base")
    return [
        title("behaviour, all pairs"),
        row("  accuracy", lambda one: number(one.accuracy)),
        row("  mean P_geo of the answer", lambda one: number(one.probability)),
        row(f"  mean {comparison.readout}, nats {_OURS}", lambda one: number(one.readout)),
        title("circuit: m > 0.5"),
        row("  heads", _sizes),
        row(f"  heads unsettled, 0.1 < m < 0.9 {_OURS}", _unsettled),
        row("  faithfulness, F(C|M)/F(M)", lambda one: _spread(one.paper_faithfulness)),
        row(f"  faithfulness, normalised {_OURS}", lambda one: _spread(one.faithfulness)),
        row(f"  answer switched {_OURS}", lambda one: _spread(one.switched)),
        row(f"  seed stability, corrected {_OURS}", lambda one: _corrected(one.stability)),
        title("the base's circuit, frozen"),
        row(f"  transfer, F(C|M)/F(M) {_OURS}", lambda one: _spread(one.paper_transfer)),
        row(f"  transfer, normalised {_OURS}", lambda one: _spread(one.transfer)),
        title("masks against the base's"),
        row("  most moved heads, m(M) - m(base)", partial(_moved, place=0)),
        *filter(any, (row("", partial(_moved, place=at)) for at in range(1, MOVED_SHOWN))),
        row(f"  mean size of the shift {_OURS}", lambda one: _number(one.mean_shift)),
        row(f"  the same, run against run {_OURS}", lambda one: _spread(one.run_shift)),
        row("  IoU (97.5 % of permutations)", partial(_agreed, base=base)),
        row("  with its necessity, r (p)", partial(_gave_up, base=base)),
        title("circuit against the base's"),
        row("  heads shared", _shared),
        row("  retention", _retained),
        row(f"  retention by chance {_OURS}", _chance),
        row(f"  retention, corrected {_OURS}", _retained_corrected),
        row(f"  retention at matched size {_OURS}", _matched),
        row(f"  the same, corrected {_OURS}", _matched_corrected),
        row(
            f"  split-half ceiling, corrected {_OURS}",
            lambda one: _corrected(ceiling) if one.role == "base" else "",
        ),
        row(f"  across halves, corrected {_OURS}", _across),
        row(f"  across halves / ceiling {_OURS}", _relative),
        row(f"  may retention be read? {_OURS}", _readable),
        title("necessity of heads, against the base's"),
        row(f"  Pearson {_OURS}", lambda one: _number(one.pearson)),
        row(f"  Spearman {_OURS}", lambda one: _number(one.spearman)),
        row("  necessity x sufficiency, most", partial(_specialist, place=0)),
        *(row("", partial(_specialist, place=at)) for at in range(1, MOVED_SHOWN)),
    ]


def _agreed(column: Column, base: Column) -> str:
    if column is base or not column.masks or not base.masks:
        return "" if column is base else _NONE
    found = agreement(mean_mask(column.masks), mean_mask(base.masks))
    return _NONE if found.iou is None else f"{found.iou:.2f} ({found.null:.2f})"


def _gave_up(column: Column, base: Column) -> str:
    if column is base or not any((column.shift or {}).values()) or base.necessity is None:
        return "" if column is base else _NONE
    found = shift_by_necessity(mean_mask(column.masks), mean_mask(base.masks), base.necessity)
    return f"{found.r:+.2f} ({found.p_value:.2g})"


def _specialist(column: Column, place: int) -> str:
    if column.necessity is None or column.sufficiency is None:
        return _NONE if place == 0 else ""
    found = list(specialists(column.necessity, column.sufficiency).items())[place]
    return f"{found[0]} {found[1]:.2g}" if found[1] > 0 else ""


def _number(value: float | None) -> str:
    return _NONE if value is None else number(value)


def _spread(spread: Spread | None, places: int = 2) -> str:
    """`0.81 (0.79..0.84)`, or `0.81` where the range is not seen."""
    if spread is None:
        return _NONE
    mean, low, high = (
        f"{round(value, places) + 0.0:.{places}f}"  # + 0.0 turns -0.0 into 0.0
        for value in (spread.mean, spread.low, spread.high)
    )
    return mean if low == high else f"{mean} ({low}..{high})"


def _sizes(column: Column) -> str:
    return " ".join(map(str, column.sizes)) or _NONE


def _unsettled(column: Column) -> str:
    between = [sum(0.1 < value < 0.9 for value in mask.values()) for mask in column.masks]
    return " ".join(map(str, between)) or _NONE


def _corrected(agreement: Agreement | None) -> str:
    return _spread(None if agreement is None else agreement.corrected)


def _moved(column: Column, place: int) -> str:
    if column.shift is None:
        return _NONE if place == 0 and column.role != "base" else ""
    shown = [f"{one} {column.shift[one]:+.2f}" for one in column.most_moved(MOVED_SHOWN)]
    seen = [text for text in shown if not text.endswith("0.00")]
    if not seen:
        return "none" if place == 0 else ""
    return seen[place] if place < len(seen) else ""


def _of_retention(column: Column, cell: Callable[[Any], str]) -> str:
    if column.role == "base":
        return ""
    return _NONE if column.retention is None else cell(column.retention)


def _shared(column: Column) -> str:
    def cell(found: Any) -> str:
        shared = [one.shared for one in found.retained.overlaps]
        least, most = min(shared), max(shared)
        return f"{least}" if least == most else f"{least}..{most}"

    return _of_retention(column, cell)


def _retained(column: Column) -> str:
    return _of_retention(column, lambda found: _spread(found.retained.value))


def _chance(column: Column) -> str:
    return _of_retention(column, lambda found: f"{found.retained.chance:.2f}")


def _retained_corrected(column: Column) -> str:
    return _of_retention(column, lambda found: _spread(found.retained.corrected))


def _matched(column: Column) -> str:
    def cell(found: Any) -> str:
        if found.matched is None:
            return _NONE
        return _spread(found.matched.agreement.value) + (" ties" if found.matched.tied else "")

    return _of_retention(column, cell)


def _matched_corrected(column: Column) -> str:
    return _of_retention(
        column,
        lambda found: _corrected(None if found.matched is None else found.matched.agreement),
    )


def _across(column: Column) -> str:
    return _of_retention(column, lambda found: _corrected(found.across))


def _relative(column: Column) -> str:
    return _of_retention(column, lambda found: _number(found.relative))


def _readable(column: Column) -> str:
    return _of_retention(column, lambda found: "ABSTAIN" if found.abstained else "yes")


def _vulnerable(comparison: Comparison) -> list[str]:
    """C_vuln, head by head."""
    if comparison.against == "reference":
        what = f"C_vuln: m(tuned) < m(reference) - {number(comparison.delta)}"
    else:
        what = (
            f"{_OURS} m(tuned) < m(base) - {number(comparison.delta)}; the paper's C_vuln needs a "
            "reference"
        )
    found = comparison.vulnerable
    if found is None:
        return [*_wrapped(what), *_wrapped(f"none: {comparison.vulnerable_undefined}", indent="  ")]
    count = f"{len(found.members)} of {comparison.heads} heads"
    if not found.members:
        return _wrapped(f"{what}: {count}")
    header = ("", *(f"m({column.role})" for column in comparison.columns), "drop")
    header += (f"in runs {_OURS}", f"by seed alone {_OURS}")
    rows = [header, *(_vulnerable_row(comparison, member) for member in found.members)]
    return [*_wrapped(f"{what}: {count}"), *(f"  {line}" for line in aligned(rows))]


def _vulnerable_row(comparison: Comparison, member: Member) -> tuple[str, ...]:
    found = comparison.vulnerable
    assert found is not None
    means = [
        f"{sum(mask[member] for mask in column.masks) / len(column.masks):.2f}"
        if column.masks
        else _NONE
        for column in comparison.columns
    ]
    within = _NONE if found.share_within is None else f"{found.share_within[member]:.0%}"
    share = f"{found.share[member]:.0%}"
    return (str(member), *means, f"{found.drop[member]:.2f}", share, within)


def _reasons(comparison: Comparison) -> list[str]:
    lines = []
    for column in comparison.columns:
        for quantity, reason in column.undefined.items():
            lines += _wrapped(f"{column.role}, no {quantity}: {reason}")
        if column.retention is not None and column.retention.abstained:
            lines += _wrapped(f"{column.role}, ABSTAIN on retention: {column.retention.abstained}")
    return lines


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=True
    )
