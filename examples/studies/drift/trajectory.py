"""How far a run's checkpoints have turned and moved, beside what they lose and learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from examples.studies.drift.scored import Score, Task, score
from forgetguard.anatomy.locate import locate
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import CheckpointSpec, resolve
from forgetguard.measures.parameter_drift import relative_drift, weight_pairs
from forgetguard.measures.singular_rotation import KINDS, SHARE, Start, matrices, read_matrix


@dataclass(frozen=True, slots=True)
class Step:
    """One checkpoint: the mean angle of its matrices' leading subspaces (radians; as
    `singular_rotation`, without a control), drift of all weights, and each task's score."""

    name: str
    angle: float
    drift: float
    scores: tuple[Score, ...]


def trajectory(base: CheckpointSpec, run: Sequence[str], tasks: Sequence[Task]) -> list[Step]:
    """The run's checkpoints, in its order. The base's matrices are decomposed once for all.

    Raises:
        CheckpointError: a checkpoint's weights do not match the base's.
    """
    specs = [resolve(one, "tuned") for one in run]
    angles: dict[str, list[float]] = {str(spec): [] for spec in specs}
    of_spec = [
        {one.name: one for one in matrices(weight_pairs(base, spec), KINDS)} for spec in specs
    ]
    for name, pair in of_spec[0].items():
        start = Start(read_matrix(pair)[0], max(1, round(SHARE * min(pair.shape))), name)
        for spec, pairs in zip(specs, of_spec, strict=True):
            change = read_matrix(pairs[name])[1]
            angles[str(spec)].append(start.turned(change).mean_angle)
    found = []
    for spec in specs:
        with ModelPair([base, spec]) as both, both.tuned.open() as model:
            scores = tuple(score(locate(model), task) for task in tasks)
        angle = float(np.mean(angles[str(spec)]))
        found.append(Step(spec.location, angle, relative_drift(base, spec), scores))
    return found


def rank_correlations(steps: Sequence[Step]) -> dict[str, list[float]]:
    """Spearman's, of angle and of drift with each task's loss over the checkpoints."""
    losses = [
        [one.loss for one in column] for column in zip(*(s.scores for s in steps), strict=True)
    ]
    return {
        name: [float(spearmanr([getattr(one, name) for one in steps], loss)[0]) for loss in losses]
        for name in ("angle", "drift")
    }
