"""Baselines: what an accepted checkpoint read, recorded, and later ones held against it. [light]

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
import numpy.typing as npt

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import SpecificationError
from forgetguard.gate.certificate import measurement_from_dict
from forgetguard.gate.declaration import CircuitSpec, InlinePairs
from forgetguard.gate.environment import COMPARED, COMPARED_VERSIONS, differences
from forgetguard.gate.measurement import Measurement
from forgetguard.gate.recorded import Recorded

SCHEMA = "forgetguard.baseline"
SCHEMA_VERSION = 1
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
    measurement: Measurement


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A baseline file's entries, by circuit name. `recording`: circuits that it lacks are about to
    be added, and so are no error. `versions` and `environment` are this run's."""

    path: Path
    circuits: Mapping[str, Entry]
    recording: bool = False
    versions: Mapping[str, str] | None = None
    environment: Mapping[str, Any] | None = None


def identity(spec: CircuitSpec, prompts_sha256: str, base: Mapping[str, str]) -> dict[str, Any]:
    """What makes a recorded number comparable: base, circuit, readout and prompts, in plain values.

    Args:
        spec: the circuit, with the heads that it was measured with.
        prompts_sha256: of the pairs that it was measured on (`certificate.digest_pairs`).
        base: the fingerprint of the base.
    """
    return {
        "base": dict(base),
        "readout": spec.readout,
        "chat_template": spec.chat_template,
        "site": spec.site,
        "confidence": spec.confidence,
        "heads": sorted(str(head) for head in spec.heads),
        "prompts_sha256": prompts_sha256,
    }


def entry_to_dict(
    measured: Mapping[str, Any],
    spec: CircuitSpec,
    base: Mapping[str, str],
    recorded: Mapping[str, Any],
    limits: Mapping[str, str],
) -> dict[str, Any]:
    """An entry in plain values, from a measurement in plain values (`measurement_to_dict`)."""
    return {
        "identity": identity(spec, measured["prompts_sha256"], base),
        "recorded": dict(recorded),
        "limits": dict(limits),
        # A baseline that was itself gated against a baseline does not carry that one along.
        "measured": {key: value for key, value in measured.items() if key != "baseline"},
    }


def entry_from_dict(name: str, data: Mapping[str, Any], where: str) -> Entry:
    """Raises SpecificationError: the entry is not whole."""
    try:
        return Entry(
            identity=dict(data["identity"]),
            recorded=dict(data["recorded"]),
            limits=dict(data["limits"]),
            measurement=measurement_from_dict(data["measured"]),
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
    if then.get("heads") != now["heads"]:
        found.append(_other_heads(then.get("heads", ()), now["heads"]))
    for key in now:
        if key not in ("base", "heads", "prompts_sha256") and then.get(key) != now[key]:
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
    spec: CircuitSpec, pairs: Sequence[PromptPair], baseline: Baseline, base: Mapping[str, str]
) -> Entry | None:
    """The entry of a circuit, None where it is about to be added.

    Args:
        spec: the circuit, with its heads.
        pairs: what it is measured on now; all of them must have been recorded, and no others
            unless they are drawn look by look.
        baseline: the baseline in force.
        base: the fingerprint of the base.

    Raises:
        SpecificationError: the baseline lacks the circuit, or recorded another: the message says
            what differs.
    """
    entry = baseline.circuits.get(spec.name)
    if entry is None:
        if baseline.recording:
            return None
        names = sorted(baseline.circuits)
        raise SpecificationError(
            f"{spec.where(1)}: {missing_message(baseline.path, spec.name, names)}"
        )
    there = {_texts(pair) for pair in entry.measurement.pairs}
    differing = mismatches(entry, identity(spec, "", base))
    strange = sum(_texts(pair) not in there for pair in pairs)
    if strange:
        differing.append(f"the prompts ({strange} of {len(pairs)} pairs were not recorded)")
    elif len(pairs) < len(there) and not _sequential(spec):
        differing.append(f"the prompts ({len(there)} pairs were recorded, now {len(pairs)})")
    if differing:
        raise SpecificationError(
            f"{spec.where(1)}: circuit {spec.name!r} is not what the baseline {baseline.path} "
            f"recorded; it differs in {'; '.join(differing)}: gate what was recorded, or {_UPDATE}"
        )
    return entry


def attach(
    spec: CircuitSpec, measurement: Measurement, baseline: Baseline, base: Mapping[str, str]
) -> Measurement:
    """The measurement with what was recorded on the same pairs, and a note where the recording ran
    on something else. Arguments and errors as `check_recorded`."""
    entry = check_recorded(spec, measurement.pairs, baseline, base)
    if entry is None:
        return measurement
    places = {_texts(pair): place for place, pair in enumerate(entry.measurement.pairs)}
    order = [places[_texts(pair)] for pair in measurement.pairs]
    return replace(
        measurement,
        baseline=_recorded(entry.measurement, order),
        notes=measurement.notes + _warnings(baseline, entry, measurement, order),
    )


def _texts(pair: PromptPair) -> tuple[str, str, str, str | None]:
    return pair.clean, pair.counterfactual, pair.answer, pair.distractor


def _sequential(spec: CircuitSpec) -> bool:
    return not isinstance(spec.pairs, InlinePairs) and spec.pairs.most is not None


def _recorded(then: Measurement, order: Sequence[int]) -> Recorded:
    """The recorded arrays in the order of the pairs of now."""

    def take(values: npt.ArrayLike, _: str) -> npt.NDArray[np.float64]:
        return np.asarray(values, dtype=np.float64)[list(order)]

    return Recorded(
        tuned_readout=then.tuned_readout,
        tuned_correct=then.tuned_correct,
        circuit_damage=then.circuit_damage,
        all_damage=then.all_damage,
        head_damage=then.head_damage,
    ).mapped(take)


def _warnings(
    baseline: Baseline, entry: Entry, now: Measurement, order: Sequence[int]
) -> tuple[str, ...]:
    """What of versions, environment and the base's own readouts is not as it was."""
    then = entry.recorded
    changed: list[str] = []
    if baseline.versions is not None:
        changed += differences(then.get("versions", {}), baseline.versions, COMPARED_VERSIONS)
    if baseline.environment is not None:
        changed += differences(then.get("environment", {}), baseline.environment, COMPARED)
    notes = [f"WARNING: the baseline was recorded with {'; '.join(changed)}"] if changed else []
    base = entry.measurement.base_readout[list(order)]
    apart = float(np.abs(base - now.base_readout).max(initial=0.0))
    if apart > SAME_BASE:
        notes.append(
            f"WARNING: the base itself reads up to {apart:.2g} nats differently from when the "
            "baseline was recorded: so much of any difference is the machine's"
        )
    return tuple(notes)
