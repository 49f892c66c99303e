"""From the readings of two or three models to the numbers of the table; pure."""

from __future__ import annotations

import random
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TypeVar

import numpy as np
from scipy import stats

from examples.studies.comparison.mask_shift import (
    Mask,
    VulnerableHeads,
    mask_shift,
    mean_mask,
    vulnerable_over_seeds,
)
from examples.studies.comparison.reading import Circuit, Reading, circuit_of
from examples.studies.comparison.result import Column
from examples.studies.comparison.retention import Agreement, Retention, Spread, retention
from forgetguard.anatomy.members import Member
from forgetguard.errors import MeasurementError
from forgetguard.measures.faithfulness import Faithfulness
from forgetguard.measures.interventions import FloatArray
from forgetguard.measures.necessity import Roles

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Derived:
    """The columns, base first, and what stands between them."""

    columns: tuple[Column, ...]
    ceiling: Agreement | None
    vulnerable: VulnerableHeads | None
    vulnerable_undefined: str | None
    against: str


def derive(readings: Sequence[Reading], *, delta: float, least_stability: float) -> Derived:
    """All numbers of a comparison.

    Args:
        readings: of the base, the tuned model and, where there is one, the reference.

    Raises:
        MeasurementError: delta or least_stability is out of range, or a mask is no mask.
    """
    base = readings[0]
    # The base against itself carries the ceiling and its seeds' agreement.
    itself, doubts = _defined(lambda: _retention(base, base, least_stability))
    if itself is not None:
        doubts = itself.abstained
    columns = [_column(one, base, itself, doubts, least_stability) for one in readings]
    against = readings[-1].role if len(readings) > 2 else "base"
    tuned, other = readings[1], readings[-1] if len(readings) > 2 else base
    vulnerable, reason = None, tuned.unable or other.unable
    if reason is None:
        vulnerable = vulnerable_over_seeds(tuned.masks, other.masks, delta)
    ceiling = None if itself is None else itself.ceiling
    return Derived(tuple(columns), ceiling, vulnerable, reason, against)


def spread(values: Sequence[float]) -> Spread:
    """Mean and range."""
    plain = [float(value) for value in values]
    return Spread(statistics.mean(plain), min(plain), max(plain), len(plain))


def correlations(
    first: Mapping[Member, float], second: Mapping[Member, float]
) -> tuple[float, float] | None:
    """Pearson's and Spearman's over the members of `first`; None where one of the two is constant,
    or there are fewer than three members."""
    x, y = (np.array([values[member] for member in first]) for values in (first, second))
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    with warnings.catch_warnings():
        # Nearly constant: scipy warns, and the value stands.
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        found = stats.pearsonr(x, y)[0], stats.spearmanr(x, y)[0]
    return float(found[0]), float(found[1])


def split_correlations(roles: Roles, seed: int = 0) -> tuple[float, float] | None:
    """How necessity on one random half of the pairs goes with that on the other: what the same
    model would read, at half the pairs."""
    n = roles.lost.shape[1]
    order = list(range(n))
    random.Random(f"necessity halves {seed}").shuffle(order)
    halves = (roles.lost[:, part].mean(axis=1) for part in (order[: n // 2], order[n // 2 :]))
    one, other = (dict(zip(roles.members, half.tolist(), strict=True)) for half in halves)
    return correlations(one, other)


def paper_faithfulness(read: Faithfulness) -> FloatArray:
    """F(C|M) / F(M) of every circuit, in mean geometric-mean probability; `read` is in
    log-probability.

    Raises:
        MeasurementError: the model gives its answers no probability at all.
    """
    return _probability_ratio(read.circuits, read.clean.readout)


def _probability_ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    most = np.exp(whole).mean()
    if not most > 0:
        raise MeasurementError("the whole model gives the answers no probability at all")
    result: FloatArray = np.exp(part).mean(axis=1) / most
    return result


def _defined(compute: Callable[[], T]) -> tuple[T | None, str | None]:
    """The value, or why there is none."""
    try:
        return compute(), None
    except MeasurementError as error:
        return None, str(error)


class _Reasons:
    """Values, with the reasons of those that are None."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def value(self, name: str, compute: Callable[[], T]) -> T | None:
        value, reason = _defined(compute)
        if reason is not None:
            self.found[name] = reason
        return value


def _column(
    reading: Reading,
    base: Reading,
    itself: Retention | None,
    doubts: str | None,
    least_stability: float,
) -> Column:
    """`itself`: the base's retention in itself, and `doubts`, why it is no evidence."""
    is_base, reasons = reading is base, _Reasons()
    own, from_base = (
        [reading.circuits.index(circuit_of(mask)) for mask in masks]
        for masks in (reading.masks, base.masks)
    )
    if reading.unable is not None:
        reasons.found["circuit"] = reading.unable
    normalised = reasons.value("faithfulness", lambda: reading.alone.values)
    raw = reasons.value("paper_faithfulness", lambda: paper_faithfulness(reading.alone_logprob))
    switched = reasons.value(
        "switched", lambda: _probability_ratio(reading.switched, reading.switched_whole)
    )
    kept = None
    if is_base and doubts:
        reasons.found["ceiling"] = doubts
    elif not is_base and reading.masks:
        kept = reasons.value("retention", lambda: _retention(base, reading, least_stability))
    stability = itself.base_stability if is_base and itself is not None else None
    necessity = reasons.value("necessity", lambda: reading.roles.necessity)
    sufficiency = None if necessity is None else reading.roles.sufficiency
    correlated = (
        split_correlations(reading.roles)
        if is_base
        else _necessity_correlations(base, reading, reasons)
    )
    shift = mask_shift(mean_mask(reading.masks), mean_mask(base.masks)) if reading.masks else None
    return Column(
        role=reading.role,
        checkpoint=reading.checkpoint,
        able=reading.unable is None,
        accuracy=float(reading.behaviour.correct.mean()),
        readout=float(reading.behaviour.readout.mean()),
        probability=float(reading.probability.mean()),
        whole=reading.alone.whole,
        masks=reading.masks,
        sizes=tuple(len(circuit_of(mask)) for mask in reading.masks),
        faithfulness=_chosen(normalised, own),
        paper_faithfulness=_chosen(raw, own),
        switched=_chosen(switched, own),
        transfer=None if is_base else _chosen(normalised, from_base),
        paper_transfer=None if is_base else _chosen(raw, from_base),
        stability=stability if kept is None else kept.tuned_stability,
        necessity=necessity,
        sufficiency=sufficiency,
        shift=None if is_base else shift,
        mean_shift=None if is_base or shift is None else _size(shift),
        run_shift=_run_shift(base, reading),
        retention=kept,
        pearson=None if correlated is None else correlated[0],
        spearman=None if correlated is None else correlated[1],
        undefined=reasons.found,
    )


def _retention(base: Reading, other: Reading, least_stability: float) -> Retention:
    def circuits(masks: Sequence[Mask]) -> list[Circuit]:
        return [circuit_of(mask) for mask in masks]

    return retention(
        circuits(base.masks),
        circuits(other.masks),
        circuits(base.other_masks),
        base.roles.members,
        least_stability,
        base_scores=base.masks,
        tuned_scores=other.masks,
    )


def _necessity_correlations(
    base: Reading, other: Reading, reasons: _Reasons
) -> tuple[float, float] | None:
    """Over heads, of what is lost without each; shares would give the same number."""
    one, two = (
        dict(zip(roles.members, roles.lost.mean(axis=1).tolist(), strict=True))
        for roles in (base.roles, other.roles)
    )
    found = correlations(one, two)
    if found is None:
        reasons.found["necessity correlation"] = (
            "fewer than three heads, or every head of one model is equally necessary"
        )
    return found


def _run_shift(base: Reading, other: Reading) -> Spread | None:
    runs = (
        list(combinations(base.masks, 2))
        if base is other
        else list(product(base.masks, other.masks))
    )
    return spread([_size(mask_shift(mask, before)) for before, mask in runs]) if runs else None


def _size(shift: Mapping[Member, float]) -> float:
    return statistics.mean(abs(value) for value in shift.values())


def _chosen(values: FloatArray | None, rows: Sequence[int]) -> Spread | None:
    return None if values is None or not rows else spread([values[row] for row in rows])
