"""Replay: old questions among the new, so that old behaviour keeps a place in the loss."""

from __future__ import annotations

import random
from collections.abc import Sequence

from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question


def draw_replay(
    replay: Sequence[Question], new: int, share: float, seed: int
) -> tuple[Question, ...]:
    """The questions that are replayed beside `new` new ones, to make up `share` of all, drawn by
    `seed`: at least one, and each once before any is drawn again.

    Raises:
        SpecificationError: there is nothing to replay.
    """
    if not replay:
        raise SpecificationError(
            "sft-replay was given no questions to replay: give some of the old task"
        )
    rng = random.Random(f"replay {seed}")
    wanted = max(round(new * share / (1.0 - share)), 1)
    drawn: list[Question] = []
    while len(drawn) < wanted:
        drawn += rng.sample(replay, min(len(replay), wanted - len(drawn)))
    return tuple(drawn)
