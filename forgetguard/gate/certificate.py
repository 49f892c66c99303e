"""What was declared and measured as plain values, so that it can be judged again elsewhere. [light]

Numbers stay exact: a float is written as the shortest decimal that reads back as the same float
(Python's `repr`, which JSON uses). Numbers that are not finite become "nan", "inf" or "-inf".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.members import Member, parse_member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import SpecificationError
from forgetguard.gate.declaration import CircuitSpec, FilePairs, InlinePairs, Limit, TaskPairs
from forgetguard.gate.measurement import Control, Measurement
from forgetguard.gate.recorded import NUMBERS as RECORDED_NUMBERS
from forgetguard.gate.recorded import Recorded
from forgetguard.gate.seal import digest, digest_file

# The fields of Measurement by what they hold; a test holds them complete.
FLAGS = ("base_correct", "tuned_correct")
NUMBERS = (
    "base_readout",
    "tuned_readout",
    "circuit_importance",
    "circuit_damage",
    "all_importance",
    "all_damage",
    "reference_circuit_damage",
)
BY_HEAD = ("head_importance", "head_damage", "head_own_damage", "reference_head_damage")


def digest_pairs(pairs: Sequence[PromptPair]) -> str:
    """sha256 of the texts of prompt pairs, in any order: what a prompt set is."""
    return digest(sorted(map(_pair, pairs), key=lambda texts: [text or "" for text in texts]))


# --- the circuit as declared -----------------------------------------------------------------


def circuit_to_dict(spec: CircuitSpec) -> dict[str, Any]:
    """What a circuit file declares, with its heads (also those that `circuit: auto` stood for), its
    limits and the hashes of the file and of its prompt file."""
    return {
        "name": spec.name,
        "capability": spec.capability,
        "readout": spec.readout,
        "chat_template": spec.chat_template,
        "site": spec.site,
        "confidence": spec.confidence,
        "auto": spec.auto,
        "heads": [str(head) for head in spec.heads],
        "limits": [_plain_fields(limit) for limit in spec.limits],
        "pairs": _pairs_to_dict(spec.pairs),
        "file": None if spec.path is None else str(spec.path),
        "file_sha256": digest_file(spec.path),
    }


def circuit_from_dict(data: Mapping[str, Any]) -> CircuitSpec:
    """The circuit, as far as its limits need it: the prompts themselves are with the measurement.

    Raises:
        SpecificationError: `data` is no circuit.
    """
    try:
        return CircuitSpec(
            name=data["name"],
            capability=data["capability"],
            readout=data["readout"],
            chat_template=bool(data["chat_template"]),
            site=data["site"],
            confidence=float(data["confidence"]),
            auto=bool(data["auto"]),
            heads=tuple(parse_member(head) for head in data["heads"]),
            limits=tuple(Limit(**limit) for limit in data["limits"]),
            pairs=_pairs_from_dict(data["pairs"]),
            path=None if data["file"] is None else Path(data["file"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecificationError(f"not a circuit as it was declared: {error!r}") from error


def _pairs_to_dict(pairs: TaskPairs | FilePairs | InlinePairs) -> dict[str, Any]:
    if isinstance(pairs, TaskPairs):
        return {"kind": "task", **_plain_fields(pairs)}
    if isinstance(pairs, FilePairs):
        return {"kind": "file", **_plain_fields(pairs), "sha256": digest_file(pairs.path)}
    return {"kind": "inline"}


def _pairs_from_dict(data: Mapping[str, Any]) -> TaskPairs | FilePairs | InlinePairs:
    rest = {key: value for key, value in data.items() if key not in ("kind", "sha256")}
    if data["kind"] == "task":
        return TaskPairs(**rest)
    if data["kind"] == "file":
        return FilePairs(**rest | {"path": Path(rest["path"])})
    return InlinePairs(())


def _plain_fields(value: Any) -> dict[str, Any]:
    """The plain fields of a dataclass; a path as text; the prompts themselves left out."""
    named = {one.name: getattr(value, one.name) for one in fields(value) if one.name != "pairs"}
    return {key: str(one) if isinstance(one, Path) else one for key, one in named.items()}


# --- what was measured -----------------------------------------------------------------------


def measurement_to_dict(measurement: Measurement) -> dict[str, Any]:
    """Everything that verdicts are decided on, pair by pair; what was not measured is left out."""
    found: dict[str, Any] = {
        "pairs": [_pair(pair) for pair in measurement.pairs],
        "prompts_sha256": digest_pairs(measurement.pairs),
        "dropped": int(measurement.dropped),
        "notes": [str(note) for note in measurement.notes],
    }
    found |= _arrays_to_dict(measurement, FLAGS, NUMBERS, BY_HEAD)
    if measurement.looks:
        found["looks"] = [int(look) for look in measurement.looks]
    if measurement.controls:
        found["controls"] = [_control_to_dict(control) for control in measurement.controls]
    if measurement.baseline is not None:
        found["baseline"] = _arrays_to_dict(
            measurement.baseline, ("tuned_correct",), RECORDED_NUMBERS, ("head_damage",)
        )
    return found


def measurement_from_dict(data: Mapping[str, Any]) -> Measurement:
    """The inverse of `measurement_to_dict`.

    Raises:
        SpecificationError: `data` is no measurement, or the hash of its prompts is not theirs.
    """
    try:
        pairs = tuple(PromptPair(*texts) for texts in data["pairs"])
        baseline = data.get("baseline")
        measurement = Measurement(
            pairs=pairs,
            dropped=int(data["dropped"]),
            notes=tuple(data["notes"]),
            looks=tuple(data.get("looks", ())),
            controls=tuple(_control_from_dict(control) for control in data.get("controls", ())),
            baseline=None if baseline is None else _recorded_from_dict(baseline),
            **_arrays_from_dict(data, FLAGS, NUMBERS, BY_HEAD),
        )
        prompts = data["prompts_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecificationError(f"not a measurement: {error!r}") from error
    if prompts != digest_pairs(pairs):
        raise SpecificationError("the prompts of a measurement are not those of its prompts_sha256")
    return measurement


def _arrays_to_dict(
    source: Measurement | Recorded,
    flags: Sequence[str],
    numbers: Sequence[str],
    by_head: Sequence[str],
) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: [bool(value) for value in getattr(source, name)] for name in flags
    }
    for name in numbers:
        values = getattr(source, name)
        if values is not None:
            found[name] = _numbers(values)
    for name in by_head:
        heads: Mapping[Member, Any] = getattr(source, name)
        if heads:
            found[name] = {str(head): _numbers(values) for head, values in heads.items()}
    return found


def _arrays_from_dict(
    data: Mapping[str, Any],
    flags: Sequence[str],
    numbers: Sequence[str],
    by_head: Sequence[str],
) -> dict[str, Any]:
    values: dict[str, Any] = {name: np.array(data[name], dtype=np.bool_) for name in flags}
    values |= {name: _array(data[name]) for name in numbers if name in data}
    for name in by_head:
        heads = data.get(name, {})
        values[name] = {parse_member(head): _array(one) for head, one in heads.items()}
    return values


def _control_to_dict(control: Control) -> dict[str, Any]:
    return {
        "name": control.name,
        "members": [str(member) for member in control.members],
        "damage": None if control.damage is None else _numbers(control.damage),
        "note": control.note,
    }


def _control_from_dict(data: Mapping[str, Any]) -> Control:
    damage = data["damage"]
    members = tuple(parse_member(member) for member in data["members"])
    return Control(data["name"], members, None if damage is None else _array(damage), data["note"])


def _recorded_from_dict(data: Mapping[str, Any]) -> Recorded:
    return Recorded(
        **_arrays_from_dict(data, ("tuned_correct",), RECORDED_NUMBERS, ("head_damage",))
    )


def _pair(pair: PromptPair) -> list[str | None]:
    """Texts and template: what makes a pair."""
    return [pair.clean, pair.counterfactual, pair.answer, pair.distractor, pair.template]


def _numbers(values: npt.ArrayLike) -> list[float | str]:
    return [
        number if math.isfinite(number) else str(number)
        for number in np.asarray(values, dtype=np.float64).tolist()
    ]


def _array(values: Sequence[float | str]) -> npt.NDArray[np.float64]:
    return np.array([float(value) for value in values], dtype=np.float64)
