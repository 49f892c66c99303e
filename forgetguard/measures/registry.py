"""Every measure, by key: those of this folder in plain sight, and those of entry points."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata

from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.measures.measure import NATS, Estimator, Measure, Sampled
from forgetguard.measures.samples import (
    CORRECT,
    COUNTERFACTUAL,
    DAMAGE,
    IMPORTANCE,
    OWN_DAMAGE,
    READOUT,
    SAID,
    TOP1,
)

GROUP = "forgetguard.measures"
BUILT_IN: Mapping[str, str] = {  # key: the module that makes it, as MEASURE
    "dcv.circuit": "forgetguard.measures.dcv_circuit",
    "dcv.head": "forgetguard.measures.dcv_head",
    "dcv.all": "forgetguard.measures.dcv_all",
    "accuracy.drop": "forgetguard.measures.accuracy_drop",
    "accuracy.flips": "forgetguard.measures.accuracy_flips",
    "top1.drop": "forgetguard.measures.top1_drop",
    "readout.drop": "forgetguard.measures.readout_drop",
    "margin.drop": "forgetguard.measures.margin_drop",
    "kl.forward": "forgetguard.measures.kl_forward",
    "kl.reverse": "forgetguard.measures.kl_reverse",
    "mode.mass": "forgetguard.measures.mode_mass",
    "mode.drift": "forgetguard.measures.mode_drift",
    "cka.layer": "forgetguard.measures.cka_layer",
    "drift.weights": "forgetguard.measures.drift_weights",
    "rotation": "forgetguard.measures.rotation",
    "drift.layer": "forgetguard.measures.drift_layer",
    "heads.disrupted": "forgetguard.measures.heads_disrupted",
    "gradient.conflict": "forgetguard.measures.gradient_conflict",
    "gradient.conflict.matrix": "forgetguard.measures.gradient_conflict_matrix",
    "gradient.conflict.head": "forgetguard.measures.gradient_conflict_head",
    "sharpness.max": "forgetguard.measures.sharpness_max",
    "sharpness.trace": "forgetguard.measures.sharpness_trace",
    "lm_eval.drop": "forgetguard.measures.lm_eval_drop",
    "lm_eval.flips": "forgetguard.measures.lm_eval_flips",
    "lm_eval.calibration": "forgetguard.measures.lm_eval_calibration",
}
# Names that samples already have.
TAKEN = (READOUT, CORRECT, TOP1, SAID, COUNTERFACTUAL, IMPORTANCE, DAMAGE, OWN_DAMAGE)
MODIFIERS: Mapping[str, str] = {  # suffix: what it makes of any measure
    "reference": "tuned minus the reference, on the same samples",
    "baseline": "tuned minus what the baseline recorded, on the same samples",
}


def known() -> tuple[str, ...]:
    """The keys of all measures, this package's first."""
    return (*BUILT_IN, *sorted(set(_entry_points()) - set(BUILT_IN)))


def split(key: str) -> tuple[str, str]:
    """(the measure's key, the modifier or nothing): `dcv.head.over_reference` is
    ("dcv.head", "reference")."""
    measure, dot, over = key.rpartition(".over_")
    return (measure, over) if dot and over in MODIFIERS else (key, "")


def find(key: str) -> Measure:
    """The measure of a limit's key, with or without a modifier.

    A measure of another distribution that cannot be loaded, or has the name of one that is there
    already, is returned as one that raises when it is measured: that limit has no verdict, and the
    others have theirs.

    Raises:
        SpecificationError: there is none; the nearest is named.
    """
    name = split(key)[0]
    if name in BUILT_IN or name in _entry_points():
        return _load(name)
    raise SpecificationError(f"unknown limit {key!r}: {nearest(key)}")


def keys() -> tuple[str, ...]:
    """Everything that may stand under `limits:`, modified measures included."""
    names = known()
    return (*names, *(f"{name}.over_{over}" for over in MODIFIERS for name in names))


def nearest(key: str) -> str:
    """What may have been meant by an unknown key, or all there is."""
    close = difflib.get_close_matches(key, keys(), n=1)
    return f"did you mean {close[0]!r}?" if close else f"the measures are {', '.join(known())}"


def all_measures() -> tuple[Measure, ...]:
    """Every measure, in the order of `known`."""
    return tuple(map(_load, known()))


@functools.cache
def _entry_points() -> Mapping[str, tuple[metadata.EntryPoint, ...]]:
    found: dict[str, tuple[metadata.EntryPoint, ...]] = {}
    for entry in metadata.entry_points(group=GROUP):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


@functools.cache
def _load(name: str) -> Measure:
    others = _entry_points().get(name, ())
    holders = ["forgetguard"] * (name in BUILT_IN) + [_distribution(entry) for entry in others]
    if len(holders) > 1:
        return _broken(
            name,
            f"measure {name!r} is given by {' and by '.join(holders)}: which one is meant cannot "
            "be told: uninstall one, or have it renamed",
        )
    if name in BUILT_IN:
        found: Measure = importlib.import_module(BUILT_IN[name]).MEASURE
        return found
    return _foreign(name, others[0])


def _foreign(name: str, entry: metadata.EntryPoint) -> Measure:
    source = _distribution(entry)
    try:
        found = entry.load()
    except Exception as error:  # another's code: whatever it raises must not end the run
        return _broken(name, f"measure {name!r} of {source} cannot be loaded: {described(error)}")
    if not isinstance(found, Measure) or found.key != name:
        got = f"the measure {found.key!r}" if isinstance(found, Measure) else repr(found)
        return _broken(
            name,
            f"entry point {name!r} of {source} must be a forgetguard.measures.measure.Measure with "
            f"that key, got {got}",
        )
    if name in TAKEN:
        return _broken(name, f"measure {name!r} of {source}: {name} is read of every model anyway")
    return replace(found, source=source)


def _broken(name: str, why: str) -> Measure:
    def fail(*_: object) -> Mapping[str, float]:
        raise MeasurementError(why)

    # Of a kind that needs nothing of the file that it stands in.
    return Measure(name, why, NATS, Sampled.NOTHING, estimator=Estimator.EXACT, on_disk=fail)


def _distribution(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def described(error: BaseException) -> str:
    """An exception of other code in one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
