"""All measures as a table, from the registry: for `forgetguard measures` and docs/measures.md."""

from __future__ import annotations

from collections.abc import Sequence

from forgetguard.measures import registry
from forgetguard.measures.measure import Estimator, Measure, Subjects
from forgetguard.report.terminal import aligned

HEADER = ("measure", "what it is", "of", "unit", "limits", "sampled over", "estimator", "needs")


def row(measure: Measure) -> tuple[str, ...]:
    """A measure's cells, in the order of `HEADER`."""
    unit = measure.unit
    limits = "from 0 on" if unit.below is None else f"0 to below {unit.below:g}"
    return (
        measure.key,
        measure.about,
        measure.subjects.value,
        unit.name,
        limits,
        measure.sampled.value,
        measure.estimator.value,
        needs(measure),
    )


def needs(measure: Measure) -> str:
    """What it takes, in words."""
    if measure.takes:
        return "completions; " * measure.needs_completions + measure.takes
    if measure.patched is not None:
        return "a circuit; each other model once, patched runs of the base"
    if measure.on_disk is not None:
        return "weights on disk"
    return "each model once"


def markdown(measures: Sequence[Measure]) -> str:
    """The table for a page."""
    lines = [HEADER, ("---",) * len(HEADER)]
    for measure in measures:
        key, *rest = row(measure)
        lines.append((f"`{key}`", *(cell.replace("|", "\\|") for cell in rest)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def text(measures: Sequence[Measure]) -> str:
    """A line a measure, and what makes others of each."""
    lines = aligned([(one.key, one.about, f"[{_kind(one)}]", _source(one)) for one in measures])
    lines.append("")
    for name, about in registry.MODIFIERS.items():
        lines.append(f"any of them with .over_{name}: {about}")
    return "\n".join(lines) + "\n"


def _kind(measure: Measure) -> str:
    of = "" if measure.subjects is Subjects.WHOLE else f", {measure.subjects.value}"
    exact = ", exact" if measure.estimator is Estimator.EXACT else ""
    return f"{measure.unit.name}{of}{exact}"


def _source(measure: Measure) -> str:
    return "" if measure.source == "forgetguard" else f"from {measure.source}"
