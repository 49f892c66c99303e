"""Samples and gate files for tests, from the arrays by their plain names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.measures.samples import Control, FloatArray, Key, Note, Samples

# What each argument of `samples` is.
WHOLE = {
    "base_readout": Key("readout", "", "base"),
    "tuned_readout": Key("readout", "", "tuned"),
    "base_correct": Key("correct", "", "base"),
    "tuned_correct": Key("correct", "", "tuned"),
    "circuit_importance": Key("importance", "circuit", "base"),
    "circuit_damage": Key("damage", "circuit", "tuned"),
    "all_importance": Key("importance", "all", "base"),
    "all_damage": Key("damage", "all", "tuned"),
    "reference_readout": Key("readout", "", "reference"),
    "reference_correct": Key("correct", "", "reference"),
    "reference_circuit_damage": Key("damage", "circuit", "reference"),
    "reference_all_damage": Key("damage", "all", "reference"),
    "recorded_readout": Key("readout", "", "baseline"),
    "recorded_correct": Key("correct", "", "baseline"),
    "recorded_circuit_damage": Key("damage", "circuit", "baseline"),
    "recorded_all_damage": Key("damage", "all", "baseline"),
}
BY_MEMBER = {
    "head_importance": ("importance", "base"),
    "head_damage": ("damage", "tuned"),
    "head_own_damage": ("own_damage", "tuned"),
    "reference_head_damage": ("damage", "reference"),
    "recorded_head_damage": ("damage", "baseline"),
}


def samples(
    pairs: Sequence[PromptPair],
    *,
    dropped: int = 0,
    notes: Sequence[Note] = (),
    stages: Sequence[int] = (),
    controls: Mapping[str, tuple[Sequence[Member], Any]] | None = None,
    **arrays: Any,
) -> Samples:
    """Samples on `pairs`; `arrays` by the names above: one array, or arrays by member. `controls`:
    by name, their members and their damage (None: there were none).

    What is None is left out.
    """
    found = _by_key(arrays)
    beside = []
    for name, (members, damage) in (controls or {}).items():
        control = Control(name, tuple(str(member) for member in members))
        beside.append(control)
        if damage is not None:
            found[Key("damage", control.subject, "tuned")] = np.asarray(damage, dtype=np.float64)
    return Samples(tuple(pairs), found, {}, dropped, tuple(notes), tuple(stages), tuple(beside))


def changed(data: Samples, **arrays: Any) -> Samples:
    """The samples with other arrays by the names above, in place of all that bear that name; what
    is None, or no member, is taken out."""
    gone = {WHOLE[name] for name in arrays if name in WHOLE}
    for quantity, role in (BY_MEMBER[name] for name in arrays if name in BY_MEMBER):
        gone |= {
            key
            for key in data.arrays
            if (key.quantity, key.role) == (quantity, role) and key.subject.startswith("L")
        }
    kept = {key: values for key, values in data.arrays.items() if key not in gone}
    return replace(data, arrays={**kept, **_by_key(arrays)})


def read(data: Samples, name: str, member: Member | None = None) -> FloatArray:
    """One array by its name above, of `member` where there is one for each."""
    if member is None:
        return data.arrays[WHOLE[name]]
    quantity, role = BY_MEMBER[name]
    return data.need(quantity, str(member), role)


def _by_key(arrays: Mapping[str, Any]) -> dict[Key, FloatArray]:
    found = {}
    for name, values in arrays.items():
        if name in BY_MEMBER:
            quantity, role = BY_MEMBER[name]
            for member, one in (values or {}).items():
                found[Key(quantity, str(member), role)] = np.asarray(one, dtype=np.float64)
        elif values is not None:
            found[WHOLE[name]] = np.asarray(values, dtype=np.float64)
    return found
