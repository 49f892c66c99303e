"""Samples and gate files for tests, from the arrays by their plain names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from forgetguard.anatomy.members import Head, Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.declaration import GateSpec, InlinePairs
from forgetguard.measures.samples import Control, FloatArray, Key, Note, Samples

HEADS = (Head(2, 1), Head(0, 4), Head(3, 0))
# What each argument of `samples` is.
WHOLE = {
    "base_readout": Key("readout", "", "base"),
    "tuned_readout": Key("readout", "", "tuned"),
    "base_correct": Key("correct", "", "base"),
    "tuned_correct": Key("correct", "", "tuned"),
    "base_top1": Key("top1", "", "base"),
    "tuned_top1": Key("top1", "", "tuned"),
    "base_said": Key("said", "", "base"),
    "tuned_said": Key("said", "", "tuned"),
    "base_counterfactual": Key("counterfactual", "", "base"),
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
    by name, their members and their damage (None: there were none). On the counterfactual prompts
    the base reads 5 less than on the clean ones, where nothing else is given.

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
    if arrays.get("base_readout") is not None:
        lower = np.asarray(arrays["base_readout"]) - 5.0
        arrays = {"base_counterfactual": lower, **arrays}
    for name, values in arrays.items():
        if name in BY_MEMBER:
            quantity, role = BY_MEMBER[name]
            for member, one in (values or {}).items():
                found[Key(quantity, str(member), role)] = np.asarray(one, dtype=np.float64)
        elif values is not None:
            found[WHOLE[name]] = np.asarray(values, dtype=np.float64)
    return found


def spec(heads: tuple[Head, ...] = HEADS, readout: str = "logit_diff", **more: Any) -> GateSpec:
    """A gate file named c with a circuit, and without limits."""
    texts = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
    return GateSpec("c", "ioi", InlinePairs(texts), readout, heads, (), **more)


def measured(
    pairs: int = 64,
    dcv: float = 0.0,
    heads: dict[Head, float] | None = None,
    weak: tuple[Head, ...] = (),
    noise: float = 0.3,
    seed: int = 0,
    templates: int = 0,
) -> Samples:
    """A capability the base can do, with a circuit's and heads' DCV as asked; `weak` heads have an
    importance of zero, up to noise, and then `heads` is their damage as a share of the circuit's
    importance."""
    rng = np.random.default_rng(seed)

    def noisy(level: float, spread: float) -> Any:
        return level + spread * rng.standard_normal(pairs)

    importance = noisy(3, 0.5)
    importances = {head: noisy(1, 0.2) for head in HEADS}
    for head in weak:
        importances[head] = noisy(0, 0.2)
        importances[head] -= importances[head].mean()
    damages = {}
    for head in HEADS:
        share = (heads or {}).get(head, 0.0)
        scale = importance if head in weak else importances[head]
        damages[head] = share * scale + (noisy(0, noise * 0.3) if share else 0.0)
    readout = noisy(5, 0.5)
    damage = dcv * importance + (noisy(0, noise) if dcv else 0.0)
    return samples(
        tuple(
            PromptPair(
                f"clean {i:03}", f"counter {i:03}", " y", " n",
                template=f"t{i % templates}" if templates else "",
            )
            for i in range(pairs)
        ),
        base_readout=readout,
        tuned_readout=readout - damage,
        base_correct=np.ones(pairs, dtype=bool),
        tuned_correct=np.ones(pairs, dtype=bool),
        circuit_importance=importance,
        circuit_damage=damage,
        head_importance=importances,
        head_damage=damages,
        all_importance=2 * importance,
        all_damage=2 * damage,
    )  # fmt: skip
