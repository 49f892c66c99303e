"""A calibration as text for a terminal and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from forgetguard.calibration.calibrating import Advice, Calibration, CircuitCalibration, Row
from forgetguard.calibration.limits import LimitReading, Stated, fewest_draws
from forgetguard.calibration.nulls import BATCHES, DTYPE, KERNEL, MATCHED
from forgetguard.report.json_file import versions
from forgetguard.report.terminal import aligned
from forgetguard.report.wording import note, number

SCHEMA, SCHEMA_VERSION = "forgetguard.calibration", 1


def calibration_text(found: Calibration) -> str:
    """Every circuit's readings and limits, and what the words mean."""
    parts = [_circuit_text(one) for one in found.circuits]
    return "\n\n".join(["\n".join(_legend(found)), *parts])


def _legend(found: Calibration) -> list[str]:
    lines = ["Harmless by construction (nothing was forgotten): dtype, batches, kernel."]
    if found.moved is None:
        lines.append(
            "No tuned= was given: no yardstick, so limits can be found too tight, not too loose."
        )
        return lines
    tensors, norm = found.moved
    rate = f"{100 * found.alarm:g} %"
    lines += [
        f"Yardstick: random changes of the {tensors} tensors that tuning moved, each by as much "
        f"(norm {number(norm)} in all).",
        "They may really do damage: see what they cost the readout and the accuracy.",
    ]
    if found.draws < fewest_draws(found.alarm):
        lines.append(
            f"{found.draws} draws cannot state {rate}: the largest was taken, which holds the next "
            f"with at most {100 / (found.draws + 1):.1f} %. --draws {fewest_draws(found.alarm)} or "
            "more can."
        )
    else:
        lines.append(
            f"From `passes from` on, the next random change is held (fails or abstains) with at "
            f"most {rate}; from `no fail from` on it fails with at most {rate}."
        )
    return lines


def _circuit_text(one: CircuitCalibration) -> str:
    head = f"{one.spec.name}: {len(one.spec.members)} members, {one.n_pairs} pairs"
    readings = aligned([_READINGS, *_reading_rows(one)])
    limits = aligned([_LIMITS, *map(_limit_row, one.advice)])
    lines = [head, *_indented(readings), *_sets(one), *_indented(limits)]
    lines += [f"  {each.limit.key}: {_too_noisy(each)}" for each in one.advice if each.noisy]
    return "\n".join([*lines, *(f"  note: {note(each)}" for each in one.notes)])


def _too_noisy(advice: Advice) -> str:
    needed = "no limit passes them all" if math.isinf(advice.suggested) else (
        f"{_limit(advice.suggested)} would let much be lost"
    )  # fmt: skip
    why = f" ({advice.why.value})" if advice.why else ""
    return (
        f"{needed}, so {advice.limit.maximum:g} stays{why}: give more pairs, or take out the heads "
        "whose damage they cannot tell"
    )


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


_READINGS = ("reading", "draws", "circuit DCV", "largest head", "readout lost", "accuracy lost")


def _reading_rows(one: CircuitCalibration) -> list[tuple[str, ...]]:
    rows = []
    for kind in (DTYPE, KERNEL, BATCHES, MATCHED):
        some = one.of(kind)
        if some:
            name = f"{kind} {some[0].null.name}" if len(some) == 1 else kind
            rows.append(_reading_row(name, some))
    if one.tuned is not None:
        rows.append(_reading_row(f"tuned {one.tuned.null.name}", [one.tuned]))
    return rows


def _reading_row(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    heads = [row.head for row in rows if row.head is not None]
    worst = max(heads, key=lambda head: head[1], default=None)
    return (
        name,
        str(len(rows)),
        _spread([row.circuit for row in rows]),
        "none" if worst is None else f"{worst[0]} {_small(worst[1])}",
        _spread([row.readout for row in rows], percent=True),
        _spread([row.accuracy for row in rows], percent=True),
    )


def _spread(values: Sequence[float], *, percent: bool = False) -> str:
    """The median, and the range where there are several."""
    shown = _percent if percent else _small
    middle = shown(float(np.median(values)))
    if len(values) == 1:
        return middle
    return f"{middle} [{shown(min(values))}, {shown(max(values))}]"


def _percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f} %"  # + 0.0: no -0.0


def _small(value: float) -> str:
    """Two significant digits; what is 0 but for rounding in its own words."""
    return "0" if value == 0 else f"{value:.1e}" if abs(value) < 1e-4 else f"{value:.2g}"


def _sets(one: CircuitCalibration) -> list[str]:
    if one.sets is None or one.tuned is None:
        return []
    values, rank = one.sets.values, one.sets.rank(one.tuned.circuit)
    return [
        f"  any heads: {len(values)} random sets of {len(one.spec.members)} lose "
        f"{_spread(list(values))} of the circuit's importance in tuned, the circuit "
        f"{_small(one.tuned.circuit)} (p = {rank:.2f})"
    ]


_LIMITS = (
    "limit",
    "declared",
    "harmless",
    "no fail from",
    "passes from",
    "random changes",
    "suggested",
    "",
)


def _limit_row(advice: Advice) -> tuple[str, ...]:
    draws = "" if advice.passes is None else (
        f"{advice.held_matched}/{advice.passes.draws} held, {advice.failed_matched} fail"
    )  # fmt: skip
    return (
        advice.limit.key,
        f"{advice.limit.maximum:g}",
        _limit(advice.harmless) if advice.harmless > 0 else "0",
        _stated(advice.not_fails),
        _stated(advice.passes),
        draws,
        _limit(advice.suggested),
        advice.judgement,
    )


def _stated(found: Stated | None) -> str:
    return "" if found is None else f"{_limit(found.limit)}{'' if found.as_asked else ' (largest)'}"


def _limit(value: float) -> str:
    return "none" if math.isinf(value) else f"{value:.2f}" if value >= 0.005 else _small(value)


# --- JSON -----------------------------------------------------------------------------------------


def calibration_dict(found: Calibration, options: dict[str, Any]) -> dict[str, Any]:
    """Everything that was read, in plain values; `options`: what was asked for."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "options": options,
        "alarm": found.alarm,
        "draws": found.draws,
        "fewest_draws": fewest_draws(found.alarm),
        "seed": found.seed,
        "moved": None
        if found.moved is None
        else {"tensors": found.moved[0], "norm": found.moved[1]},
        "circuits": [_circuit_dict(one) for one in found.circuits],
        "refused": list(found.refused),
        "notes": list(found.notes),
    }


def _circuit_dict(one: CircuitCalibration) -> dict[str, Any]:
    sets = one.sets
    return {
        "circuit": one.spec.name,
        "members": [str(member) for member in one.spec.members],
        "pairs": one.n_pairs,
        "nulls": [_row_dict(row) for row in one.rows],
        "tuned": None if one.tuned is None else _row_dict(one.tuned),
        "random_sets": None
        if sets is None or one.tuned is None
        else {
            "values": [float(value) for value in sets.values],
            "sets": [[str(member) for member in chosen] for chosen in sets.sets],
            "p": sets.rank(one.tuned.circuit),
        },
        "limits": [_advice_dict(advice) for advice in one.advice],
        "notes": [note(each) for each in one.notes],
    }


def _row_dict(row: Row) -> dict[str, Any]:
    return {
        "kind": row.null.kind,
        "name": row.null.name,
        "harmless": row.null.harmless,
        "circuit_dcv": _finite(row.circuit),
        "largest_head": None if row.head is None else {"head": row.head[0], "dcv": row.head[1]},
        "readout_lost": _finite(row.readout),
        "accuracy_lost": _finite(row.accuracy),
        "limits": {key: _held_dict(value) for key, value in row.held.items()},
    }


def _held_dict(held: LimitReading) -> dict[str, Any]:
    return {
        "value": _finite(held.value),
        "low": _finite(held.low),
        "high": _finite(held.high),
        "head": held.subject,
        "passes_from": _finite(held.passes),
        "no_fail_from": _finite(held.not_fails),
        "outcome_as_declared": held.outcome.value,
    }


def _advice_dict(advice: Advice) -> dict[str, Any]:
    return {
        "limit": advice.limit.key,
        "declared": advice.limit.maximum,
        "harmless_need": _finite(advice.harmless),
        "passes_from": _stated_dict(advice.passes),
        "no_fail_from": _stated_dict(advice.not_fails),
        "suggested": _finite(advice.suggested),
        "judgement": advice.judgement,
        "harmless_held": advice.held_harmless,
        "harmless_failed": advice.failed_harmless,
        "random_changes_held": advice.held_matched,
        "random_changes_failed": advice.failed_matched,
        "why": None if advice.why is None else advice.why.value,
    }


def _stated_dict(found: Stated | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found) | {"limit": _finite(found.limit)}


def _finite(value: float) -> float | None:
    """None where JSON has no number for it."""
    return float(value) if math.isfinite(value) else None
