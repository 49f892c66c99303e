"""Samples and gate files for tests, from the arrays by their plain names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.measures.samples import Control, Key, Note, Samples

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
    "reference_circuit_damage": Key("damage", "circuit", "reference"),
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
    found = {}
    for name, values in arrays.items():
        if name in BY_MEMBER:
            quantity, role = BY_MEMBER[name]
            for member, one in (values or {}).items():
                found[Key(quantity, str(member), role)] = np.asarray(one, dtype=np.float64)
        elif values is not None:
            found[WHOLE[name]] = np.asarray(values, dtype=np.float64)
    beside = []
    for name, (members, damage) in (controls or {}).items():
        control = Control(name, tuple(str(member) for member in members))
        beside.append(control)
        if damage is not None:
            found[Key("damage", control.subject, "tuned")] = np.asarray(damage, dtype=np.float64)
    return Samples(tuple(pairs), found, {}, dropped, tuple(notes), tuple(stages), tuple(beside))
