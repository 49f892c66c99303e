"""Baselines: what an accepted checkpoint read, recorded, and later ones held against it.

An entry is one circuit's measurement with its identity: the base, the circuit and the prompts. A
later checkpoint can be compared with it pair by pair only where all of that is the same. The
checkpoint that was recorded, the versions and the device may differ: that is the use of a baseline,
and a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from forgetguard.errors import SpecificationError
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.environment import COMPARED, COMPARED_VERSIONS, differences
from forgetguard.gate.records import samples_from_dict
from forgetguard.measures.samples import (
    BASE,
    BASELINE,
    OWN_DAMAGE,
    READOUT,
    TUNED,
    Key,
    Note,
    Samples,
    Unit,
    texts,
)

SCHEMA = "forgetguard.baseline"
SCHEMA_VERSION = 3
# Readouts of one base on one prompt agree to about 1e-4 nats between machines in float32.
SAME_BASE = 1e-3  # nats, beyond which the verdicts say that the base itself reads differently
_UPDATE = "record it anew with --forgetguard-update"
_ADD = "--forgetguard-update-new-only"
_SHOWN = 12  # characters of a hash


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One recorded circuit. `identity` is what must be the same, `recorded` what may differ (when,
    which checkpoint, versions, environment), `limits` the limits that were gated then, each with
    the node id of its gate."""

    identity: Mapping[str, Any]
    recorded: Mapping[str, Any]
    limits: Mapping[str, str]
    samples: Samples


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A baseline file's entries, by circuit name. `recording`: circuits that it lacks are about to
    be added, and so are no error. `versions` and `environment` are this run's."""

    path: Path
    circuits: Mapping[str, Entry]
    recording: bool = False
    versions: Mapping[str, str] | None = None
    environment: Mapping[str, Any] | None = None


def identity(spec: GateSpec, prompts_sha256: str, base: Mapping[str, str]) -> dict[str, Any]:
    """What makes a recorded number comparable: base, circuit, readout and prompts, in plain values.

    Args:
        spec: the circuit, with the heads that it was measured with.
        prompts_sha256: of the pairs that it was measured on (`records.digest_units`).
        base: the fingerprint of the base.
    """
    return {
        "base": dict(base),
        "readout": spec.readout,
        "chat_template": spec.chat_template,
        "site": spec.site,
        "confidence": spec.confidence,
        "members": sorted(map(str, spec.members)),
        "prompts_sha256": prompts_sha256,
    }


def entry_to_dict(
    measured: Mapping[str, Any],
    spec: GateSpec,
    base: Mapping[str, str],
    recorded: Mapping[str, Any],
    limits: Mapping[str, str],
) -> dict[str, Any]:
    """An entry in plain values, from samples in plain values (`samples_to_dict`)."""
    return {
        "identity": identity(spec, measured["prompts_sha256"], base),
        "recorded": dict(recorded),
        "limits": dict(limits),
        # A baseline that was itself gated against a baseline does not carry that one along.
        "measured": {**measured, **_without_baseline(measured)},
    }


def _without_baseline(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {
        kind: {
            quantity: {role: found for role, found in roles.items() if role != BASELINE}
            for quantity, roles in measured[kind].items()
        }
        for kind in ("arrays", "exact")
    }


def entry_from_dict(name: str, data: Mapping[str, Any], where: str) -> Entry:
    """Raises SpecificationError: the entry is not whole."""
    try:
        return Entry(
            identity=dict(data["identity"]),
            recorded=dict(data["recorded"]),
            limits=dict(data["limits"]),
            samples=samples_from_dict(data["measured"]),
        )
    except (KeyError, TypeError, ValueError, SpecificationError) as error:
        raise SpecificationError(
            f"{where}: the entry of circuit {name!r} cannot be read ({error}): {_UPDATE}"
        ) from error


# --- is it the same thing? -------------------------------------------------------------------


def mismatches(entry: Entry, now: Mapping[str, Any]) -> list[str]:
    """What of an identity differs from that of an entry, in words. The prompts are compared pair
    by pair (`check_recorded`), for a sequential run may draw fewer than were recorded."""
    then, found = entry.identity, []
    theirs, ours = then.get("base", {}), now["base"]
    for part in sorted({*theirs, *ours}):
        if theirs.get(part) != ours.get(part):
            old, new = (str(one.get(part))[:_SHOWN] for one in (theirs, ours))
            found.append(f"the base's {part} (recorded {old}..., now {new}...)")
    if then.get("members") != now["members"]:
        found.append(_other_heads(then.get("members", ()), now["members"]))
    for key in now:
        if key not in ("base", "members", "prompts_sha256") and then.get(key) != now[key]:
            found.append(f"{key} (recorded {then.get(key)}, now {now[key]})")
    return found


def _other_heads(then: Sequence[str], now: Sequence[str]) -> str:
    gone, new = sorted({*then} - {*now}), sorted({*now} - {*then})
    parts = [f"{', '.join(gone)} gone"] * bool(gone) + [f"{', '.join(new)} new"] * bool(new)
    return f"heads ({'; '.join(parts)})"


def missing_message(path: Path, name: str, others: Sequence[str]) -> str:
    """That a circuit is not in the baseline."""
    held = f"it holds {', '.join(others)}" if others else "it is empty"
    return (
        f"circuit {name!r} is not in the baseline {path} ({held}): if it is new add it with "
        f"{_ADD}; if it was renamed record the baseline anew"
    )


# --- then beside now -------------------------------------------------------------------------


def check_recorded(
    spec: GateSpec, units: Sequence[Unit], baseline: Baseline, base: Mapping[str, str]
) -> Entry | None:
    """The entry of a gate file, None where it is about to be added.

    Args:
        spec: the gate file, with its members.
        units: what it is measured on now; all of them must have been recorded, and no others
            unless they are drawn stage by stage.
        baseline: the baseline in force.
        base: the fingerprint of the base.

    Raises:
        SpecificationError: the baseline lacks the file, or recorded another: the message says what
            differs.
    """
    entry = baseline.circuits.get(spec.name)
    if entry is None:
        if baseline.recording:
            return None
        names = sorted(baseline.circuits)
        raise SpecificationError(
            f"{spec.where(1)}: {missing_message(baseline.path, spec.name, names)}"
        )
    there = {_same(unit) for unit in entry.samples.units}
    differing = mismatches(entry, identity(spec, "", base))
    strange = sum(_same(unit) not in there for unit in units)
    if strange:
        differing.append(f"the prompts ({strange} of {len(units)} pairs were not recorded)")
    elif len(units) < len(there) and getattr(spec.pairs, "most", None) is None:
        differing.append(f"the prompts ({len(there)} pairs were recorded, now {len(units)})")
    if differing:
        raise SpecificationError(
            f"{spec.where(1)}: circuit {spec.name!r} is not what the baseline {baseline.path} "
            f"recorded; it differs in {'; '.join(differing)}: gate what was recorded, or {_UPDATE}"
        )
    return entry


def attach(
    spec: GateSpec, samples: Samples, baseline: Baseline, base: Mapping[str, str]
) -> Samples:
    """The samples with what was recorded on the same units in the role `baseline`, and a note where
    the recording ran on something else. Arguments and errors as `check_recorded`."""
    entry = check_recorded(spec, samples.units, baseline, base)
    if entry is None:
        return samples
    places = {_same(unit): place for place, unit in enumerate(entry.samples.units)}
    then = entry.samples.at([places[_same(unit)] for unit in samples.units])
    arrays = {_recorded(key): values for key, values in then.arrays.items() if _is_kept(key)}
    exact = {_recorded(key): number for key, number in then.exact.items() if _is_kept(key)}
    return replace(
        samples.with_arrays(arrays),
        exact={**samples.exact, **exact},
        tokens={**then.tokens, **samples.tokens},
        notes=samples.notes + _warnings(baseline, entry, samples, then),
    )


def _is_kept(key: Key) -> bool:
    """What the recorded checkpoint read; its controls and own damage are compared with nothing."""
    return (
        key.role == TUNED and key.quantity != OWN_DAMAGE and not key.subject.startswith("control ")
    )


def _recorded(key: Key) -> Key:
    return key._replace(role=BASELINE)


def _same(unit: Unit) -> tuple[str, ...]:
    """What makes two units the same, wherever they come from: not their template."""
    return texts(unit)[:-1]


def _warnings(baseline: Baseline, entry: Entry, now: Samples, then: Samples) -> tuple[Note, ...]:
    """What of versions, environment and the base's own readouts is not as it was."""
    recorded = entry.recorded
    changed: list[str] = []
    if baseline.versions is not None:
        changed += differences(recorded.get("versions", {}), baseline.versions, COMPARED_VERSIONS)
    if baseline.environment is not None:
        changed += differences(recorded.get("environment", {}), baseline.environment, COMPARED)
    notes = [Note("recorded_elsewhere", {"changed": changed})] if changed else []
    before, after = (one.get(READOUT, role=BASE) for one in (then, now))
    if before is not None and after is not None:
        apart = float(np.abs(before - after).max(initial=0.0))
        if apart > SAME_BASE:
            notes.append(Note("base_reads_differently", {"nats": apart}))
    return tuple(notes)
