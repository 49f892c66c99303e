"""Whole runs of the gate on made-up samples, each limit judged by the gate's own `judge`: what the
final rules do together.

A run has three circuits with four limits each: on the circuit, on every head, on the readout and on
accuracy. The base does two of the capabilities; of the third it guesses, so that its limits
cannot be judged and leave the family. Every true value stands exactly at its limit (`edge`), or
tuned is the base with noise (`intact`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from examples.studies.statistics.intervals import percent
from examples.studies.statistics.jobs import Job, Record
from examples.studies.statistics.settings import (
    CIRCUIT_LIMIT,
    DROP_LIMIT,
    HEAD_LIMIT,
    HEADS,
    Settings,
)
from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit
from forgetguard.gate.rule import can_be_judged, judge
from forgetguard.gate.verdict import Outcome
from forgetguard.measures.samples import (
    BASE,
    CIRCUIT,
    CORRECT,
    COUNTERFACTUAL,
    DAMAGE,
    IMPORTANCE,
    READOUT,
    TUNED,
    WHOLE,
    FloatArray,
    Key,
    Samples,
)

READOUT_LIMIT = 0.20
LIMITS: Mapping[str, float] = {
    "dcv.circuit": CIRCUIT_LIMIT,
    "dcv.head": HEAD_LIMIT,
    "readout.drop": READOUT_LIMIT,
    "accuracy.drop": DROP_LIMIT,
}
KINDS: Mapping[str, str] = {
    "normal": "normal",
    "worsening": "right skew: a few pairs lose much",
    "improving": "left skew: a few pairs improve much",
    "sparse": "10 % of the pairs lose all",
}
TEMPLATES: Mapping[int, tuple[int, ...]] = {16: (0,), 64: (5, 16)}  # 0: pairs without
_BETWEEN = 0.2  # of the spread lies between templates
_ABLE, _GUESSED = 2, 1  # circuits
_MEMBERS = tuple(Head(1, place) for place in range(HEADS))


def jobs(settings: Settings) -> list[Job]:
    """One for each kind of data, number of pairs and of templates, and truth."""
    return [
        partial(_records, kind, pairs, templates, edge, settings.judged)
        for kind, pairs, edge in itertools.product(KINDS, TEMPLATES, (True, False))
        for templates in TEMPLATES[pairs]
        if pairs in {*settings.pairs}
        if edge or kind == "normal"
    ]


def _records(kind: str, pairs: int, templates: int, edge: bool, runs: int) -> list[Record]:
    """In per cent: how often a run fails at all (`any`), each kind of limit fails and passes, and
    anything is said of the capability that the base only guesses."""
    fails: dict[str, list[bool]] = {key: [] for key in LIMITS}
    passes: dict[str, list[bool]] = {key: [] for key in LIMITS}
    any_fails, guessed = [], []
    for run in range(runs):
        rng = np.random.default_rng((run, pairs, templates, edge))
        cases = [
            (
                _spec(f"c{place}"),
                _samples(kind, rng, pairs, templates, able=place < _ABLE, edge=edge),
            )
            for place in range(_ABLE + _GUESSED)
        ]
        # All limits of a circuit need the same of the base.
        able = [
            can_be_judged(spec, Limit("dcv.circuit", 0.1), samples=data) for spec, data in cases
        ]
        guessed.append(any(able[_ABLE:]))
        family, failed = max(1, len(LIMITS) * sum(able)), False
        for (spec, data), key in itertools.product(cases[:_ABLE], LIMITS):
            limit = Limit(key, LIMITS[key])
            outcome = judge(spec, limit, data, seed=run, family=family).outcome
            fails[key].append(outcome is Outcome.FAIL)
            passes[key].append(outcome is Outcome.PASS)
            failed |= outcome is Outcome.FAIL
        any_fails.append(failed)
    record: Record = {"data": kind, "pairs": pairs, "templates": templates, "edge": edge}
    record |= {"runs": runs, "any": percent(np.array(any_fails))}
    for name, found in (("fails", fails), ("passes", passes)):
        record[name] = {key: percent(np.array(values)) for key, values in found.items()}
    return [record | {"guessed": percent(np.array(guessed))}]


def _spec(name: str) -> GateSpec:
    pairs = InlinePairs((PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h")))
    return GateSpec(name, "ioi", pairs, "logit_diff", _MEMBERS, ())


def _samples(
    kind: str,
    rng: np.random.Generator,
    pairs: int,
    templates: int,
    *,
    able: bool,
    edge: bool,
) -> Samples:
    """Of one circuit; what a pair does to one head it half does to the others."""
    codes = np.arange(pairs) % templates if templates else None

    def noise(rows: int) -> FloatArray:
        own: FloatArray = rng.standard_normal((rows, pairs))
        if codes is None:
            return own
        shared = rng.standard_normal((rows, templates))[:, codes]
        found: FloatArray = math.sqrt(_BETWEEN) * shared + math.sqrt(1 - _BETWEEN) * own
        return found

    worth = np.geomspace(0.5, 0.12, HEADS)[:, None]
    whole = 3 * np.exp(0.4 * noise(1) - 0.08)
    heads = 3 * worth * np.exp(0.4 * math.sqrt(0.5) * (noise(1) + noise(HEADS)) - 0.08)
    base = 1.5 * np.exp(0.4 * noise(1) - 0.08) if able else 1.5 * noise(1)
    latent = noise(1), math.sqrt(0.5) * (noise(1) + noise(HEADS)), noise(1)
    limits = (CIRCUIT_LIMIT, HEAD_LIMIT, READOUT_LIMIT)
    circuit, members, readout = (
        _damage(kind, rng, scale, limit, form) if edge else 0.02 * scale * form
        for scale, limit, form in zip((whole, heads, base), limits, latent, strict=True)
    )
    right = np.ones(pairs) if able else (base[0] > 0).astype(float)
    lost = rng.random(pairs) < (DROP_LIMIT if edge else 0.0)
    arrays: dict[Any, FloatArray] = {
        Key(READOUT, WHOLE, BASE): base[0],
        Key(READOUT, WHOLE, TUNED): (base - readout)[0],
        Key(COUNTERFACTUAL, WHOLE, BASE): -base[0] if able else 1.5 * noise(1)[0],
        Key(CORRECT, WHOLE, BASE): right,
        Key(CORRECT, WHOLE, TUNED): np.where(lost, 0.0, right),
        Key(IMPORTANCE, CIRCUIT, BASE): whole[0],
        Key(DAMAGE, CIRCUIT, TUNED): circuit[0],
    }
    for member, importance, damage in zip(_MEMBERS, heads, members, strict=True):
        arrays[Key(IMPORTANCE, str(member), BASE)] = importance
        arrays[Key(DAMAGE, str(member), TUNED)] = damage
    units = tuple(
        PromptPair(f"x{i}", f"y{i}", " a", " b", template=f"t{i % templates}" if templates else "")
        for i in range(pairs)
    )
    return Samples(units, arrays)


def _damage(
    kind: str, rng: np.random.Generator, scale: FloatArray, limit: float, form: FloatArray
) -> FloatArray:
    """Damage whose true ratio to `scale` is `limit`."""
    if kind == "sparse":
        hurt = rng.random(scale.shape[1]) < 0.1
        found: FloatArray = np.where(hurt, scale * limit / 0.1, 0.0) + 0.01 * scale * form
        return found
    # `form` is standard normal, so that both skewed ones have mean 0.
    skew = np.exp(0.8 * form - 0.32) - 1
    off = {"normal": form, "worsening": skew, "improving": -skew}[kind]
    drawn: FloatArray = limit * scale + 0.2 * scale.mean() * off
    return drawn
