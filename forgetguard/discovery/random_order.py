"""A random ranking: the control that every other method must beat."""

from __future__ import annotations

import random
from collections.abc import Sequence

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.discovery.ranking import Progress, Ranking
from forgetguard.measures.interventions import Passes, Saved


def random_order(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
) -> Ranking:
    """`members` in an order drawn with `seed`, scored from 1 (first) down to 0. The model is not
    looked at."""
    order = sorted(members)
    random.Random(f"random order {seed}").shuffle(order)
    last = max(len(order) - 1, 1)
    return Ranking({one: 1.0 - place / last for place, one in enumerate(order)}, "random")
