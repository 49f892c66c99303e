"""How far circuits lie apart, how stable each is over its pairs, where capabilities conflict:
`python -m examples.studies.circuit_distance A.circuit.yaml B.circuit.yaml ...`.

arXiv 2605.06076 follows these three through fine-tuning (neural migration, stability, conflict
between tasks). Its formulas were not to be had: the definitions are ours, over a circuit's members
and their effects, the scores of `found:` in its file. Of two circuits, with p and q the shares of
their effects |score| / sum of |score| (0 for a member that one does not hold):

    jaccard distance   1 - |A & B| / |A | B|, beside what random sets of these sizes read
    effect distance    sum |p - q| / 2: 0 for the same effects, 1 where no member is shared
    layers moved       the earth mover's distance of p and q over layers
    conflict           members that work for one capability and against the other
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples.studies.command import carry_out
from examples.studies.comparison.overlap import Overlap, named, overlap_of_counts
from forgetguard.anatomy.members import Member, parse_member
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate.schema import load_gate_file


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit with what its discovery said.

    Attributes:
        scores: its members' effects; 1 each where the file has none.
        against: effects of members outside it that work against the capability.
        universe: how many members it was found among, heads of the model where that is not said;
            0: unknown.
        halves: Jaccard of the circuit found on either half of its pairs; None: not measured.
    """

    name: str
    scores: Mapping[Member, float]
    against: Mapping[Member, float]
    universe: int
    halves: float | None


@dataclass(frozen=True, slots=True)
class Apart:
    """Two circuits: their overlap with its chance (None: no common universe is known), and the
    numbers of the module."""

    overlap: Overlap | None
    jaccard: float
    effects: float
    layers: float
    shared: tuple[Member, ...]
    conflict: tuple[Member, ...]


def read(path: Path) -> Circuit:
    """The circuit of a file.

    Raises:
        SpecificationError: it is no circuit file, or leaves its circuit to be found.
    """
    spec = load_gate_file(path)
    if not spec.members:
        raise SpecificationError(f"{path}: it names no circuit: run forgetguard discover first")
    found = dict(spec.found or {})
    given = {parse_member(name): float(score) for name, score in found.get("scores", {}).items()}
    against = {parse_member(name): float(one) for name, one in found.get("against", {}).items()}
    heads = (spec.fits.layers or 0) * (spec.fits.heads or 0) if spec.fits else 0
    return Circuit(
        spec.name,
        {one: given.get(one, 1.0) for one in spec.members},
        {one: score for one, score in against.items() if one not in spec.members},
        int(found.get("members", heads)),
        found.get("stability", {}).get("circuit"),
    )


def shares(scores: Mapping[Member, float]) -> dict[Member, float]:
    """|score| / sum of |score|.

    Raises:
        MeasurementError: there is no effect to share.
    """
    total = sum(abs(score) for score in scores.values())
    if not total > 0:
        raise MeasurementError("circuit distance: a circuit without members, or without any effect")
    return {one: abs(score) / total for one, score in scores.items()}


def apart(one: Circuit, other: Circuit) -> Apart:
    """Compare two circuits of models with the same names of heads.

    Raises:
        MeasurementError: one has no effect.
    """
    p, q = shares(one.scores), shares(other.scores)
    both, either = p.keys() & q.keys(), p.keys() | q.keys()
    layers = [0.0] * (1 + max(member.layer for member in either))
    for member in either:
        layers[member.layer] += p.get(member, 0.0) - q.get(member, 0.0)
    signs = [{**circuit.scores, **circuit.against} for circuit in (one, other)]
    conflict = [
        member
        for member in signs[0].keys() & signs[1].keys()
        if signs[0][member] * signs[1][member] < 0
    ]
    known = one.universe == other.universe > 0
    return Apart(
        overlap_of_counts(len(p), len(q), len(both), universe=one.universe) if known else None,
        1 - len(both) / len(either),
        sum(abs(p.get(member, 0.0) - q.get(member, 0.0)) for member in either) / 2,
        sum(abs(moved) for moved in accumulate(layers)),
        tuple(sorted(both)),
        tuple(sorted(conflict)),
    )


def shared_by(circuits: Sequence[Circuit]) -> dict[Member, tuple[str, ...]]:
    """Members of more than one circuit and the circuits' names, those of most circuits first."""
    members = sorted({one for circuit in circuits for one in circuit.scores})
    held = {one: tuple(c.name for c in circuits if one in c.scores) for one in members}
    found = {one: names for one, names in held.items() if len(names) > 1}
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def stability(
    values: npt.NDArray[np.float64], size: int, *, draws: int = 200, seed: int = 0
) -> float:
    """The mean Jaccard overlap of the `size` members of largest |mean effect| with those of a
    bootstrap sample of the pairs: 1 where the pairs do not matter. `values`: effects, [member,
    pair], such as importances by head (`Samples`, quantity `importance`).

    Raises:
        MeasurementError: fewer than two pairs, or not `size` members.
    """
    members, pairs = values.shape
    if pairs < 2 or not 0 < size <= members:
        raise MeasurementError(
            f"stability of {size} members out of {members} over {pairs} pairs: give at least two "
            "pairs and a size within the members"
        )

    def first(sample: npt.NDArray[np.float64]) -> frozenset[int]:
        order = np.argsort(-np.abs(sample.mean(axis=1)), kind="stable")
        return frozenset(order[:size].tolist())

    whole, draw = first(values), np.random.default_rng(seed)
    found = [first(values[:, draw.integers(pairs, size=pairs)]) for _ in range(draws)]
    return float(np.mean([len(whole & one) / len(whole | one) for one in found]))


def table(circuits: Sequence[Circuit]) -> str:
    """Everything above about some circuits, in lines."""
    lines = ["circuit: members, Jaccard of its two halves of pairs"]
    for one in circuits:
        halves = "not measured" if one.halves is None else f"{one.halves:.2f}"
        lines.append(f"  {one.name}: {len(one.scores)}, {halves}")
    lines.append("two circuits: shared (by chance, p), jaccard and effect distance, layers moved")
    for one, other in combinations(circuits, 2):
        found = apart(one, other)
        by_chance = ""
        if found.overlap is not None:
            by_chance = f" ({found.overlap.expected_shared:.1f}, {found.overlap.p_value:.1g})"
        lines.append(
            f"  {one.name}, {other.name}: {len(found.shared)}{by_chance}, {found.jaccard:.2f}, "
            f"{found.effects:.2f}, {found.layers:.1f}"
            + (f"; for one and against the other: {named(found.conflict)}" * bool(found.conflict))
        )
    lines.append("in more than one circuit")
    lines += [f"  {member}: {', '.join(names)}" for member, names in shared_by(circuits).items()]
    return "\n".join(lines)


def main() -> int:
    """Compare the circuit files that are given."""
    parser = ArgumentParser(prog="python -m examples.studies.circuit_distance")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="circuit files")
    files = parser.parse_args().files
    return carry_out(lambda _: print(table([read(path) for path in files])))


if __name__ == "__main__":
    sys.exit(main())
