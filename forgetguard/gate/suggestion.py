"""Limits to begin a review with: what a circuit reads when nothing of interest happened to it.

Base against base reads exactly 0, so it says nothing about noise. What is read here instead is the
base loaded in another number format and patched into itself: every weight and activation is off by
rounding, and nothing is forgotten. With it comes how far the importance, DCV's denominator, differs
between two halves of the pairs.

    noise = the largest bound of |DCV|, over both halves of the pairs
    split = |I(first half) - I(second half)| / |mean of the two|
    limit = max(floor, 2 noise) (1 + split), rounded up to 0.01

For `readout.drop` the readout F takes the place of the importance, and what the other number format
loses of it that of the damage. `dcv.head` is one limit for all heads: it takes the noise of the
noisiest and the median split, so that one unstable head does not loosen it for all.

The form, the factor 2 and the floors are ours and no calibration: they know neither what
fine-tuning without harm does to this base, nor what a loss costs. Review them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetguard.anatomy.locate import locate
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.gate import accuracy, studentised
from forgetguard.gate.resampling import FloatArray, cluster_codes
from forgetguard.measures.interventions import Progress
from forgetguard.measures.vulnerability import (
    Drops,
    Patched,
    capture_heads,
    each_and_all,
    patched,
)
from forgetguard.patching.budget import memory_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from forgetguard.checkpoints.options import LoadOptions
    from forgetguard.checkpoints.placement import ModelPair
    from forgetguard.checkpoints.spec import CheckpointSpec

FLOORS: Mapping[str, float] = {
    "dcv.circuit": 0.10,
    "dcv.head": 0.25,
    "readout.drop": 0.20,
    "accuracy.drop": 0.10,
}
FACTOR = 2.0  # how far beyond the noise a limit begins
TOO_MUCH = 0.5  # a limit from here on lets half a circuit's work be lost
_NOISE = "noise"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Limits by key, and what they rest on, in plain values that a circuit file can hold."""

    limits: Mapping[str, float]
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Margin:
    """What one subject, the circuit or a member, read when nothing happened to it.

    noise: the largest bound of |DCV| over both halves. split: the relative difference of its
        importance between them.
    """

    noise: float
    split: float

    def limit(self, floor: float) -> float:
        """The formula above, not rounded."""
        return max(floor, FACTOR * self.noise) * (1 + self.split)


def other_dtype(dtype: str) -> str:
    """The number format that a run in `dtype` is compared with."""
    return "float32" if dtype == "bfloat16" else "bfloat16"


@contextmanager
def base_alone(
    pair: ModelPair, options: LoadOptions, spec: CheckpointSpec | None = None
) -> Iterator[PreTrainedModel]:
    """The pair's base, or `spec` in its place, loaded by other options; the pair's own models are
    freed first, so that never two are in memory.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    from forgetguard.checkpoints.placement import ModelPair

    pair.close()
    with ModelPair({"base": spec or pair.base.spec}, options) as other, other.base.open() as model:
        yield model


def base_noise(
    pair: ModelPair,
    capability: EncodedCapability,
    members: Sequence[Member],
    *,
    progress: Progress | None = None,
) -> tuple[Patched, FloatArray]:
    """Patch the base's own contributions, read from it in `other_dtype`, into the base.

    Returns:
        What that costs, under the role `noise`, and F of the base in the other format, float64
        [pair]. Never two models are in memory: the base is loaded in the other format,
        read and freed first.

    Raises:
        ForgetguardError: a load fails, logits are not finite, or memory does not suffice.
    """
    options = replace(pair.options, dtype=other_dtype(pair.options.dtype))
    what = f"reading the noise of {capability.capability.name}"
    with memory_errors(what), base_alone(pair, options) as model:
        foreign = capture_heads(locate(model), capability, members)
    with memory_errors(what), pair.base.open() as model:
        sets = each_and_all(members)
        found = patched(locate(model), capability, sets, {_NOISE: foreign}, progress=progress)
    return found, foreign.behaviour.readout


def suggest(
    pair: ModelPair,
    capability: EncodedCapability,
    members: Sequence[Member],
    *,
    gate_pairs: int,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Progress | None = None,
) -> Suggestion:
    """Limits for the circuit `members` of the pair's base, from the noise on `capability`.

    Args:
        gate_pairs: how many pairs the gate will measure.
        seed: of the split of the pairs and of the resampling.
        confidence: the gate's, one-sided.

    Raises:
        ForgetguardError: as `base_noise`.
    """
    found, readout = base_noise(pair, capability, members, progress=progress)
    templates = [one.pair.template for one in capability.encoded.pairs]
    suggestion = from_noise(
        found.drops(members),
        found.drops(members, _NOISE),
        found.base.readout,
        found.base.readout - readout,
        templates,
        gate_pairs=gate_pairs,
        seed=seed,
        confidence=confidence,
    )
    compared = f"{other_dtype(pair.options.dtype)} patched into {pair.options.dtype}"
    return replace(suggestion, evidence={"noise_of": compared, **suggestion.evidence})


def from_noise(
    importance: Drops,
    noise: Drops,
    readout: FloatArray,
    lost: FloatArray,
    templates: Sequence[str],
    *,
    gate_pairs: int,
    seed: int = 0,
    confidence: float = 0.95,
) -> Suggestion:
    """The limits that follow from the importance and from the damage of noise, pair by pair.

    A head whose importance cannot be told from 0 in one of the halves is left out, as the gate
    leaves it out. Where the circuit's, or every head's, cannot be, the limit is the floor, and the
    evidence says that the noise is not known.

    Args:
        readout, lost: float64 [pair], F of the base, and what noise takes of it.
        templates: [pair], the template of each pair.
        gate_pairs, seed, confidence: as `suggest`.

    Raises:
        MeasurementError: there are fewer than four pairs, or a value is not finite.
    """
    members = sorted(importance.heads)
    rows = [*(importance.heads[one] for one in members), importance.circuit, readout]
    damage = [*(noise.heads[one] for one in members), noise.circuit, lost]
    *single, circuit, whole = _margins(
        np.stack(rows), np.stack(damage), templates, seed, confidence
    )
    every = dict(zip(members, single, strict=True))
    known = {one: margin for one, margin in every.items() if margin is not None}
    heads = None
    if known:
        splits = [margin.split for margin in known.values()]
        heads = Margin(known[_noisiest(known)].noise, float(np.median(splits)))
    limits = {
        "dcv.circuit": _limit("dcv.circuit", circuit),
        "dcv.head": _limit("dcv.head", heads),
        "readout.drop": _limit("readout.drop", whole),
        "accuracy.drop": accuracy_limit(gate_pairs, confidence),
    }
    evidence: dict[str, Any] = {"pairs": len(importance.circuit)}
    if circuit is not None:
        evidence["circuit"] = _plain(circuit)
    if heads is not None:
        evidence["heads"] = {**_plain(heads), "noisiest": str(_noisiest(known))}
    if whole is not None:
        evidence["readout"] = _plain(whole)
    if len(known) < len(every):
        evidence["left_out"] = [str(one) for one in every if one not in known]
    notes = _notes(circuit, known, limits)
    return Suggestion(limits, {**evidence, "notes": notes} if notes else evidence)


def _noisiest(members: Mapping[Member, Margin]) -> Member:
    return max(members, key=lambda one: (members[one].noise, one))


def accuracy_limit(gate_pairs: int, confidence: float = 0.95) -> float:
    """The smallest limit on `accuracy.drop`, of at least its floor, that `gate_pairs` pairs can
    show to be kept when no answer changes."""
    same = np.ones(gate_pairs, dtype=np.bool_)
    shown = accuracy.accuracy_drop(same, same, confidence=confidence).high
    return rounded_up(max(FLOORS["accuracy.drop"], shown))


def _margins(
    whole: FloatArray, damage: FloatArray, templates: Sequence[str], seed: int, confidence: float
) -> list[Margin | None]:
    """Of each row of importances and damages, [subject, pair]; None where they are not known."""
    order = np.random.default_rng(seed).permutation(whole.shape[1])
    halves = [np.sort(half) for half in np.array_split(order, 2)]
    bounds = np.zeros(len(whole))  # of |DCV|; inf where it is not measurable
    for half in halves:
        clusters = cluster_codes([templates[pair] for pair in half])
        common: dict[str, Any] = {"confidence": confidence, "seed": seed, "clusters": clusters}
        shown = studentised.means(whole[:, half], **common)
        able = [row for row, one in enumerate(shown) if studentised.measurable(one)]
        found = np.full(len(whole), np.inf)
        if able:
            rows = damage[able][:, half], whole[able][:, half]
            estimates = studentised.ratios(*rows, fail_alpha=0, **common).estimates
            found[able] = [max(abs(one.low), abs(one.high)) for one in estimates]
        bounds = np.maximum(bounds, found)
    first, second = (whole[:, half].mean(axis=1) for half in halves)
    known = np.isfinite(bounds) & (first * second > 0)
    return [
        Margin(float(bound), float(abs(one - two) / abs((one + two) / 2))) if is_known else None
        for bound, one, two, is_known in zip(bounds, first, second, known, strict=True)
    ]


def _limit(key: str, margin: Margin | None) -> float:
    return rounded_up(FLOORS[key] if margin is None else margin.limit(FLOORS[key]))


def rounded_up(value: float) -> float:
    """To the next hundredth: the steps in which limits are suggested."""
    # 1e-9: a value that is a whole number of hundredths but for its last bits stays.
    return math.ceil(value * 100 - 1e-9) / 100


def _plain(margin: Margin) -> dict[str, float]:
    return {"noise": float(f"{margin.noise:.3g}"), "split_half": float(f"{margin.split:.3g}")}


def _notes(
    circuit: Margin | None, members: Mapping[Member, Margin], limits: Mapping[str, float]
) -> list[str]:
    notes = []
    if circuit is None:
        notes.append(
            "the circuit's importance cannot be told from 0 on half of the pairs, so its noise is "
            "not known: give more pairs"
        )
    if not members:
        notes.append(
            "no head's importance can be told from 0 on half of the pairs, so their noise is not "
            "known: give more pairs"
        )
    wide = {"dcv.circuit": ("the circuit", circuit)}
    if members:
        noisiest = _noisiest(members)
        wide["dcv.head"] = (str(noisiest), members[noisiest])
    for key, (subject, margin) in wide.items():
        if margin is not None and limits[key] >= TOO_MUCH:
            notes.append(
                f"{key} {limits[key]:.2f} would let much be lost: {subject} reads noise up to "
                f"{margin.noise:.2g}, and its importance differs by {margin.split:.0%} between "
                "halves of the pairs: give more pairs, or take out such heads"
            )
    return notes
