"""Then and now: what a recorded checkpoint read beside what this one reads, with the paired
difference. It decides nothing. [light]"""

from __future__ import annotations

import numpy as np

from forgetguard.gate import studentised, wording
from forgetguard.gate.case import Case
from forgetguard.gate.measurement import FloatArray
from forgetguard.gate.recorded import Recorded
from forgetguard.gate.verdict import Estimate

_FEWEST_PAIRS = 2  # below it there is no spread to estimate


def beside_baseline(case: Case) -> tuple[str, ...]:
    """One note on a limit that is not itself over the baseline (nor over a reference), where
    there is a baseline and the circuit declares no limit of that measure over it."""
    recorded = case.data.baseline
    declared = {limit.key for limit in case.spec.limits}
    if recorded is None or case.limit.over or f"{case.limit.key}.over_baseline" in declared:
        return ()
    if case.count < _FEWEST_PAIRS:
        return ()
    if case.limit.key == "accuracy.drop":
        return (_accuracy(case, recorded),)
    note = _heads(case, recorded) if case.limit.is_on_heads else _whole(case, recorded)
    return () if note is None else (note,)


def _accuracy(case: Case, recorded: Recorded) -> str:
    then, now = recorded.tuned_correct, case.data.tuned_correct
    drop = case.accuracy_drop(then, now).estimate
    return _said("accuracy", f"{then.mean():.1%}", f"{now.mean():.1%}", drop, "a further drop of")


def _whole(case: Case, recorded: Recorded) -> str | None:
    """Of one ratio: the circuit's DCV, that of all heads, or the drop of the readout."""
    data = case.data
    numbers: dict[str, tuple[str, FloatArray | None, FloatArray | None, FloatArray | None]] = {
        "dcv.circuit": (
            "DCV of the circuit",
            recorded.circuit_damage,
            data.circuit_damage,
            data.circuit_importance,
        ),
        "dcv.all": ("DCV of all heads", recorded.all_damage, data.all_damage, data.all_importance),
        "readout.drop": (
            "relative drop of the readout",
            data.base_readout - recorded.tuned_readout,
            data.base_readout - data.tuned_readout,
            np.sign(data.base_readout.mean()) * data.base_readout,
        ),
    }
    if case.limit.key not in numbers:
        return None
    what, then, now, scale = numbers[case.limit.key]
    if then is None or now is None or scale is None:
        return None
    if not studentised.measurable(case.mean(scale)):
        return None
    return _ratio(case, what, then, now, scale)


def _heads(case: Case, recorded: Recorded) -> str | None:
    """Of the head whose damage grew most, as a share of the circuit's importance: in that measure
    heads that are worth little compare with the others."""
    data, circuit = case.data, case.data.circuit_importance
    having = [
        head for head in case.heads if head in recorded.head_damage and head in data.head_damage
    ]
    if circuit is None or not having or not studentised.measurable(case.mean(circuit)):
        return None
    sign = np.sign(circuit.mean())
    grown = [
        float(sign * (data.head_damage[head] - recorded.head_damage[head]).mean())
        for head in having
    ]
    head = having[int(np.argmax(grown))]
    what = (
        f"the head that changed most is {head}: its damage as a share of the circuit's importance"
    )
    return _ratio(case, what, recorded.head_damage[head], data.head_damage[head], circuit)


def _ratio(case: Case, what: str, then: FloatArray, now: FloatArray, scale: FloatArray) -> str:
    before, after = (wording.number(float(one.mean() / scale.mean())) for one in (then, now))
    difference = case.ratio(now - then, scale).estimate
    return _said(what, before, after, difference, "a difference of")


def _said(what: str, then: str, now: str, difference: Estimate, kind: str) -> str:
    shown = wording.interval(difference)
    return f"beside the baseline: {what} {then} then, {now} now, {kind} {shown}"
