"""How alike each prior task and the new one are in the base, beside what a tuned model lost of it.

After arXiv 2601.18699, which relates task similarity to forgetting. Two likenesses: the cosine of
the base's loss gradients (`gradient.conflict` with its sign turned), and how much of the prior
prompts' residual stream, after the middle layer, lies in the new prompts' leading directions: the
share of its variance in as many as hold 90 % of the new prompts' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from examples.studies.drift.scored import Score, Task, score
from forgetguard.anatomy.locate import locate
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.measures.interference import cosines
from forgetguard.measures.representation_drift import FloatArray, capture_streams

HELD = 0.9


@dataclass(frozen=True, slots=True)
class Likeness:
    """One prior task: both likenesses to the new one, and its score in base and tuned."""

    task: str
    gradient: float
    stream: float
    base: Score
    tuned: Score

    @property
    def lost(self) -> float:
        """Nats of loss that tuned has more than the base."""
        return self.tuned.loss - self.base.loss


def shared_variance(prior: FloatArray, new: FloatArray) -> float:
    """The share of `prior`'s variance, [row, width], in the leading directions of `new`."""
    one, other = (rows - rows.mean(axis=0) for rows in (prior, new))
    _, sizes, directions = np.linalg.svd(other, full_matrices=False)
    held = np.cumsum(sizes**2) / (sizes**2).sum()
    kept = directions[: int(np.searchsorted(held, HELD)) + 1]
    return float(((one @ kept.T) ** 2).sum() / (one**2).sum())


def likeness(pair: ModelPair, prior: Sequence[Task], new: Task) -> list[Likeness]:
    """Of every prior task to the new one, and what tuned lost of each."""
    with pair.base.open() as model:
        anatomy = locate(model)
        middle = anatomy.n_layers // 2
        streams = [
            capture_streams(anatomy, task.prompts).residual[middle].astype(np.float64)
            for task in (*prior, new)
        ]
        gradients = [
            float(cosines(anatomy, one.prompts, new.prompts)["", ""].values.mean()) for one in prior
        ]
        base = [score(anatomy, task) for task in prior]
    with pair.tuned.open() as model:
        tuned = [score(locate(model), task) for task in prior]
    alike = [shared_variance(one, streams[-1]) for one in streams[:-1]]
    rows = zip([one.name for one in prior], gradients, alike, base, tuned, strict=True)
    return [Likeness(*row) for row in rows]


def rank_correlations(rows: Sequence[Likeness]) -> tuple[float, float]:
    """Spearman's of what was lost with the gradients' likeness and with the streams'."""
    lost = [one.lost for one in rows]
    return tuple(
        float(spearmanr([getattr(one, name) for one in rows], lost)[0])
        for name in ("gradient", "stream")
    )  # type: ignore[return-value]
