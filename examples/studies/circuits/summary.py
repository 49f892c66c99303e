"""Means, ranges and agreements from a study's plain data: what the page and the plots share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from examples.studies.comparison.overlap import Overlap, overlap_of_counts

Data = Mapping[str, Any]
Record = Mapping[str, Any]
Matrix = npt.NDArray[np.float64]
NOTABLE = 0.1  # of the whole effect: from here on a head is worth naming


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and range of `n` numbers, at least one."""

    mean: float
    low: float
    high: float
    n: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of those that are defined; None where none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(sum(known) / len(known), min(known), max(known), len(known))


def records(
    data: Data, variant: str, task: str | None = None, *, exchanged: bool = False
) -> list[Record]:
    """What was measured of a variant, on the splits as drawn or with the halves exchanged."""
    return [
        record
        for name, found in data["tasks"].items()
        for record in found["records"]
        if task in (None, name)
        and record["variant"] == variant
        and record["exchanged"] is exchanged
    ]


def circuit(record: Record) -> frozenset[int]:
    """The heads, as places in the study's `members`, of the circuit that was cut."""
    return frozenset(record["order"][: record["size"]])


def faithfulness_of(record: Record) -> float:
    """Of that circuit."""
    return float(record["faithfulness"][record["sizes"].index(record["size"])])


def shared(data: Data, one: Record, other: Record) -> Overlap:
    """Of two circuits."""
    first, second = circuit(one), circuit(other)
    common, universe = len(first & second), len(data["members"])
    return overlap_of_counts(len(first), len(second), common, universe=universe)


def correlated(data: Data, one: Record, other: Record) -> float | None:
    """Spearman's correlation of the sizes of two records' scores; None where one is constant."""
    first, second = (_sizes_of_scores(data, record) for record in (one, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


def _sizes_of_scores(data: Data, record: Record) -> Matrix:
    values = np.empty(len(data["members"]))
    values[record["order"]] = np.abs(record["scores"])
    return values


def seed_pairs(data: Data, variant: str) -> list[tuple[Record, Record]]:
    """Every two seeds' results of one capability."""
    return [
        pair for task in data["tasks"] for pair in combinations(records(data, variant, task), 2)
    ]


def half_pairs(data: Data, variant: str) -> list[tuple[Record, Record]]:
    """The two halves' results of one split, for each capability."""
    return [
        (one, other)
        for task in data["tasks"]
        for one in records(data, variant, task)
        for other in records(data, variant, task, exchanged=True)
        if one["seed"] == other["seed"]
    ]


def _method_pairs(data: Data, one: str, other: str) -> Iterator[tuple[Record, Record]]:
    """Two variants' results of one capability on one split."""
    for task in data["tasks"]:
        second = {record["seed"]: record for record in records(data, other, task)}
        for first in records(data, one, task):
            if first["seed"] in second:
                yield first, second[first["seed"]]


def agreement(data: Data, of: Callable[[Record, Record], float | None]) -> Matrix:
    """`of` two records, mean over capabilities and splits, [variant, variant]; on the diagonal a
    variant with itself from seed to seed. NaN where it is defined nowhere."""
    names = list(data["variants"])
    result = np.full((len(names), len(names)), np.nan)
    for i, one in enumerate(names):
        for j, other in enumerate(names[: i + 1]):
            pairs = seed_pairs(data, one) if i == j else _method_pairs(data, one, other)
            found = spread(of(first, second) for first, second in pairs)
            if found is not None:
                result[i, j] = result[j, i] = found.mean
    return result


def relative_time(data: Data, variant: str) -> float | None:
    """The ranking's time over that of activation patching on the same split, the median."""
    ratios = [
        one["seconds"] / exact["seconds"]
        for one, exact in _method_pairs(data, variant, "activation")
        if one["seconds"] and exact["seconds"]
    ]
    return float(np.median(ratios)) if ratios else None


def minutes(data: Data) -> float:
    """Of all rankings and curves together."""
    found = (record for task in data["tasks"].values() for record in task["records"])
    return sum((one["seconds"] or 0.0) + (one["seconds_curve"] or 0.0) for one in found) / 60


def curves(data: Data, variant: str, task: str) -> tuple[Matrix, Matrix]:
    """Numbers of heads from none to all, [size], and faithfulness there, [record, size]."""
    sizes = np.arange(len(data["members"]) + 1, dtype=np.float64)
    rows = [
        np.interp(sizes, [0, *one["sizes"]], [0.0, *one["faithfulness"]])
        for one in records(data, variant, task)
    ]
    return sizes, np.array(rows)


def always_and_sometimes(data: Data, task: str) -> tuple[list[int], list[int]]:
    """Heads of activation patching's circuit on every split, and those on some only."""
    found = [circuit(one) for one in records(data, "activation", task)]
    always = frozenset.intersection(*found)
    return sorted(always), sorted(frozenset.union(*found) - always)


def by_necessity(data: Data, task: str) -> Sequence[int]:
    """Places of the heads, the most necessary first."""
    necessity = data["tasks"][task]["necessity"]
    return sorted(range(len(necessity)), key=lambda i: -necessity[i])
