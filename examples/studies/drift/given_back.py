"""Singular directions, values, or both, of a tuned model's matrices given back from its base, some
layers at a time, and what returns on prior tasks and on the new one.

After arXiv 2509.12235, which restores directions and sees what was forgotten come back. With
W = U S V^T of base (0) and tuned (1): directions U0 S1 V0^T, values U1 S0 V1^T, both W0. Its
control stands beside each: the same matrices moved straight towards the base, as far (Frobenius) as
giving the directions back moves them. Where that returns as much, giving directions back does no
more than undoing some of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from examples.studies.drift.scored import Score, Task, score
from examples.studies.drift.weights import layer_of
from forgetguard.anatomy.locate import locate
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.measures.origin_weights import Entries, Side, exchange
from forgetguard.measures.parameter_drift import WeightPair, weight_pairs
from forgetguard.measures.singular_rotation import KINDS, matrices, read_matrix


@dataclass(frozen=True, slots=True)
class Given:
    """What was given back in which layers (none: base and tuned as they are), and each task's
    score. moved: how far that moved the matrices, over how far tuning did."""

    what: str
    layers: tuple[int, int] | None
    moved: float
    scores: tuple[Score, ...]


def given(base: Tensor, tuned: Tensor) -> dict[str, Tensor]:
    """A tuned matrix with the base's directions, with its values, with both, and moved straight
    towards the base as far as the directions move it."""
    (left, sizes, right), (other_left, other_sizes, other_right) = (
        torch.linalg.svd(one, full_matrices=False) for one in (base, tuned)
    )
    directions = (left * other_sizes) @ right
    change = base - tuned
    far = torch.linalg.vector_norm(directions - tuned) / torch.linalg.vector_norm(change)
    return {
        "directions": directions,
        "values": (other_left * sizes) @ other_right,
        "both": base,
        "straight back, as far": tuned + change * far.clamp(max=1.0),
    }


def given_back(
    pair: ModelPair, tasks: Sequence[Task], *, kinds: Sequence[str] = KINDS, bands: int = 4
) -> list[Given]:
    """Base, tuned, and tuned with each of `given` in all layers, then in each of `bands` runs of
    neighbouring layers. One model is in memory; its weights are put back.

    Raises:
        CheckpointError: as `weight_pairs` and `exchange`.
        MeasurementError: a kind that no matrix is of.
    """
    ends = weight_pairs(pair.base.spec, pair.tuned.spec, pair.options, untied=True)
    with pair.base.open() as model, exchange(model, ends) as weights:
        anatomy = locate(model)
        rows = [Given("base", None, 1.0, tuple(score(anatomy, task) for task in tasks))]
        weights.put(dict.fromkeys(weights.parameters, Entries()), Side.TUNED)
        rows.append(Given("tuned", None, 0.0, tuple(score(anatomy, task) for task in tasks)))
        chosen = [one for one in matrices(ends, kinds) if one.name in weights.parameters]
        made = {one.name: _made(one) for one in chosen}
        count = anatomy.n_layers
        edges = [round(count * at / bands) for at in range(bands + 1)]
        spans = [(0, count - 1), *((a, b - 1) for a, b in pairwise(edges))]
        for first, last in dict.fromkeys(spans):
            inside = [one.name for one in chosen if first <= (layer_of(one) or 0) <= last]
            for what in next(iter(made.values())):
                with torch.no_grad():
                    for name in inside:
                        weights.parameters[name].copy_(made[name][what][0])
                far, size = (sum(made[one][what][at] ** 2 for one in inside) for at in (1, 2))
                scores = tuple(score(anatomy, task) for task in tasks)
                rows.append(Given(what, (first, last), float(far / size) ** 0.5, scores))
                weights.put(dict.fromkeys(inside, Entries()), Side.TUNED)
    return rows


def _made(pair: WeightPair) -> dict[str, tuple[Tensor, float, float]]:
    """What is given back of one matrix, in float32, how far from tuned it lies, and how far tuned
    from the base."""
    base, change = read_matrix(pair)
    norm = torch.linalg.vector_norm
    return {
        what: (one.float(), float(norm(one - base - change)), float(norm(change)))
        for what, one in given(base, base + change).items()
    }
