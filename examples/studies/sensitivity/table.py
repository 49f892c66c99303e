"""Dose-response curves as text for a terminal and as plain values for JSON."""

from __future__ import annotations

from typing import Any

from examples.studies.sensitivity.detection import ANY, Detected, Shares
from examples.studies.sensitivity.dose_response import Curve, Point, Sensitivity
from examples.studies.sensitivity.planting import PLANTS
from forgetguard.gate.verdict import Estimate
from forgetguard.report.json_file import versions
from forgetguard.report.terminal import aligned
from forgetguard.report.wording import interval, number

SCHEMA, SCHEMA_VERSION = "forgetguard.sensitivity", 1


def sensitivity_text(found: Sensitivity) -> str:
    """Every curve as a table, and what follows from it."""
    legend = (
        f"pass/fail/abstain: percent of {found.draws} draws of the pairs, with replacement from "
        "those measured"
    )
    return "\n\n".join([legend, *map(_curve_text, found.curves)])


def _curve_text(curve: Curve) -> str:
    keys = [limit.key for limit in curve.spec.limits]
    header = ("dose", "circuit DCV", str(curve.head), "own", "largest other", "readout",
              "accuracy", *keys)  # fmt: skip
    rows = [_row(point, keys) for point in curve.points]
    title = f"{curve.spec.name}: {curve.plant} in {curve.head}, {curve.n_pairs} pairs"
    lines = [title, f"  {PLANTS[curve.plant]}"]
    lines += [f"  {line}" for line in aligned([header, *rows])]
    return "\n".join([*lines, *(f"  {line}" for line in conclusions(curve))])


def _row(point: Point, keys: list[str]) -> tuple[str, ...]:
    return (
        f"{point.dose:g}",
        _value(point.circuit),
        _value(point.planted),
        "" if point.own is None else _brief(point.own.value),
        "" if point.other is None else f"{point.other[0]} {_brief(point.other[1].value)}",
        number(point.readout),
        f"{100 * point.accuracy:.0f} %",
        *(_shares(point.shares[key]) for key in keys),
    )


def _value(estimate: Estimate | None) -> str:
    return "not measurable" if estimate is None else interval(estimate)


def _brief(value: float) -> str:
    return f"{round(value, 3) + 0.0:g}"


def _shares(one: Shares) -> str:
    return "/".join(f"{100 * share:.0f}" for share in (one.passed, one.failed, one.abstained))


def conclusions(curve: Curve) -> list[str]:
    """From which dose on each limit fails, beside what its verdict calls detectable; where the
    curve says nothing more."""
    lines = []
    for limit in curve.spec.limits:
        found = curve.detected[limit.key]
        said = stated_detectable(curve, limit.key)
        beside = "" if said is None else f"; the verdict calls {number(said)} detectable"
        lines.append(f"{limit.key} <= {limit.maximum:g}: {_seen(found)}{beside}")
    if len(curve.spec.limits) > 1:
        lines.append(f"any of them: {_seen(curve.detected[ANY])}")
    if curve.first_error is None:
        lines.append("accuracy is the base's at every dose")
    else:
        lines.append(f"accuracy first differs from the base's at dose {curve.first_error:g}")
    lines += [
        f"{what} saturates: the same from dose {dose:g} on"
        for what, dose in curve.saturated.items()
        if dose is not None
    ]
    return lines


def _seen(found: Detected) -> str:
    if found.dose is None:
        return f"no dose fails in 80 % of draws{_reading(found.value_below)}"
    text = f"fails in 80 % of draws from dose {found.dose:g} on{_reading(found.value)}"
    if found.below:
        text += f", not yet at {found.below:g}{_reading(found.value_below)}"
    return text


def _reading(value: float | None) -> str:
    return "" if value is None else f" (reads {number(value)})"


def stated_detectable(curve: Curve, key: str) -> float | None:
    """What the verdict calls detectable, at the first dose that the limit fails, else at the
    largest: how wide an interval is depends on the damage, and before any it has no width."""
    at = curve.detected[key].dose
    point = next((one for one in curve.points if one.dose == at), curve.points[-1])
    return point.detectable[key]


# --- JSON -----------------------------------------------------------------------------------------


def sensitivity_dict(found: Sensitivity, options: dict[str, Any]) -> dict[str, Any]:
    """All curves in plain values; `options`: what was asked for."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "options": options,
        "draws": found.draws,
        "seed": found.seed,
        "curves": [_curve_dict(curve) for curve in found.curves],
        "refused": list(found.refused),
    }


def _curve_dict(curve: Curve) -> dict[str, Any]:
    return {
        "circuit": curve.spec.name,
        "plant": curve.plant,
        "head": str(curve.head),
        "pairs": curve.n_pairs,
        "limits": {limit.key: limit.maximum for limit in curve.spec.limits},
        "points": [_point_dict(point) for point in curve.points],
        "detected": {
            key: {
                "dose": one.dose,
                "value": one.value,
                "below": one.below,
                "value_below": one.value_below,
            }
            for key, one in curve.detected.items()
        },
        "saturated": dict(curve.saturated),
        "first_error": curve.first_error,
    }


def _point_dict(point: Point) -> dict[str, Any]:
    return {
        "dose": point.dose,
        "circuit_dcv": _estimate(point.circuit),
        "planted_dcv": _estimate(point.planted),
        "own_damage": _estimate(point.own),
        "largest_other": None
        if point.other is None
        else {"head": point.other[0], "dcv": _estimate(point.other[1])},
        "readout": point.readout,
        "accuracy": point.accuracy,
        "values": dict(point.values),
        "shares": {
            key: {"pass": one.passed, "fail": one.failed, "abstain": one.abstained}
            for key, one in point.shares.items()
        },
        "detectable": dict(point.detectable),
    }


def _estimate(one: Estimate | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"value": one.value, "low": _plain(one.low), "high": _plain(one.high), "n": one.n}


def _plain(value: float) -> float | str:
    """JSON has no infinity."""
    return value if abs(value) < float("inf") else str(value)
