"""What was measured for one circuit, pair by pair, checked and in an order of its own. [light]"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import MeasurementError
from forgetguard.gate.recorded import Recorded

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """Other heads, patched from tuned on the same pairs. `damage` is [n] in nats; None where there
    were no such heads, and `note` then says why."""

    name: str
    members: tuple[Member, ...]
    damage: FloatArray | None
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What was measured for one circuit on n prompt pairs; every array is [n], in nats, in the
    order of `pairs`. What the limits asked for do not need may stay None or empty.

    `looks`, where drawing is sequential, is how many pairs there are at each look; n is one of
    them.
    """

    pairs: tuple[PromptPair, ...]
    base_readout: FloatArray  # F(base, x)
    tuned_readout: FloatArray  # F(tuned, x)
    base_correct: BoolArray
    tuned_correct: BoolArray
    circuit_importance: FloatArray | None = None  # F(base, x) - F(base, x, circuit from x')
    circuit_damage: FloatArray | None = None  # F(base, x) - F(base, x, circuit from (tuned, x))
    all_importance: FloatArray | None = None  # the same with every head of the model
    all_damage: FloatArray | None = None
    head_importance: Mapping[Member, FloatArray] = field(default_factory=dict)
    head_damage: Mapping[Member, FloatArray] = field(default_factory=dict)
    head_own_damage: Mapping[Member, FloatArray] = field(default_factory=dict)  # not inherited
    reference_circuit_damage: FloatArray | None = None  # with the reference instead of tuned
    reference_head_damage: Mapping[Member, FloatArray] = field(default_factory=dict)
    dropped: int = 0  # pairs that did not align, already left out of the arrays
    notes: tuple[str, ...] = ()
    looks: tuple[int, ...] = ()
    controls: tuple[Control, ...] = ()
    baseline: Recorded | None = None  # of an accepted checkpoint on the same pairs


_PER_PAIR = {
    "base_readout": "F(base, x)",
    "tuned_readout": "F(tuned, x)",
    "base_correct": "base correct",
    "tuned_correct": "tuned correct",
    "circuit_importance": "importance of the circuit",
    "circuit_damage": "damage of the circuit",
    "all_importance": "importance of all heads",
    "all_damage": "damage of all heads",
    "reference_circuit_damage": "damage of the circuit by the reference",
}
_PER_HEAD = {
    "head_importance": "importance",
    "head_damage": "damage",
    "head_own_damage": "own damage",
    "reference_head_damage": "damage by the reference",
}
_FLAGS = ("base_correct", "tuned_correct")


def ordered(data: Measurement, name: str) -> Measurement:
    """The measurement of circuit `name` as finite float64 and bool arrays, pairs in the order of
    their texts, whatever order they were measured in.

    Raises:
        MeasurementError: there is no pair, a shape differs, or a value is not finite.
    """
    if not data.pairs:
        raise MeasurementError(
            f"circuit {name!r}: no prompt pair was measured ({data.dropped} dropped): "
            "check its pairs"
        )
    texts = [
        (pair.clean, pair.counterfactual, pair.answer, pair.distractor or "", pair.template)
        for pair in data.pairs
    ]
    order = np.array(sorted(range(len(texts)), key=texts.__getitem__))

    def take(values: npt.ArrayLike, what: str) -> FloatArray:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != order.shape:
            raise MeasurementError(
                f"circuit {name!r}: {what} has shape {array.shape} for {len(order)} pairs"
            )
        _check_finite(array, data.pairs, f"circuit {name!r}: {what}")
        found: FloatArray = array[order]
        return found

    return _mapped(replace(data, pairs=tuple(data.pairs[place] for place in order)), take)


def _check_finite(array: FloatArray, pairs: Sequence[PromptPair], what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise MeasurementError(
            f"{what} is not finite on {bad.size} of {len(pairs)} pairs, first on "
            f"{pairs[bad[0]].clean!r}: look for NaN or infinity in the weights, or load with dtype "
            "float32"
        )


def _mapped(data: Measurement, take: Callable[[npt.ArrayLike, str], FloatArray]) -> Measurement:
    """The measurement with `take` done to every array, which it is also given in words."""
    changed: dict[str, object] = {}
    for name, what in _PER_PAIR.items():
        values = getattr(data, name)
        if values is not None:
            taken = take(values, what)
            changed[name] = taken != 0 if name in _FLAGS else taken
    for name, what in _PER_HEAD.items():
        by_head: Mapping[Member, FloatArray] = getattr(data, name)
        changed[name] = {head: take(one, f"{what} of {head}") for head, one in by_head.items()}
    changed["controls"] = tuple(
        one
        if one.damage is None
        else replace(one, damage=take(one.damage, f"damage of the control {one.name}"))
        for one in data.controls
    )
    changed["baseline"] = None if data.baseline is None else data.baseline.mapped(take)
    return replace(data, **changed)  # type: ignore[arg-type]


def first(data: Measurement, count: int) -> Measurement:
    """The measurement on its first `count` pairs, as an earlier look had it."""
    return replace(at(data, slice(count)), pairs=data.pairs[:count])


def at(data: Measurement, index: slice | npt.NDArray[np.intp]) -> Measurement:
    """Every array at `index`; the pairs themselves are left to the caller, who may rename them."""
    accepted = data.baseline
    if accepted is not None:
        accepted = accepted.mapped(lambda values, _: np.asarray(values)[index])
    return replace(data, baseline=accepted, **_each([data], lambda one: one[0][index]))


def joined(parts: Sequence[Measurement]) -> Measurement:
    """Measurements of one circuit on different pairs as one, in the order of `parts`; notes, looks
    and dropped pairs are those of the last."""
    last = parts[-1]
    pairs = tuple(pair for part in parts for pair in part.pairs)
    if len(parts) == 1:
        return last
    return replace(last, pairs=pairs, **_each(parts, np.concatenate))


def _each(
    parts: Sequence[Measurement], make: Callable[[Sequence[Any]], npt.NDArray[Any]]
) -> dict[str, Any]:
    """Every array of the measurements, by field, made into one; what the last lacks stays out."""
    last = parts[-1]
    made: dict[str, Any] = {
        name: make([getattr(part, name) for part in parts])
        for name in _PER_PAIR
        if getattr(last, name) is not None
    }
    for name in _PER_HEAD:
        made[name] = {
            head: make([getattr(part, name)[head] for part in parts])
            for head in getattr(last, name)
        }
    made["controls"] = tuple(
        one
        if one.damage is None
        else replace(one, damage=make([part.controls[place].damage for part in parts]))
        for place, one in enumerate(last.controls)
    )
    return made
