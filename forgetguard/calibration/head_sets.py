"""The null "any heads": what random sets as large as the circuit lose in the tuned model.

Unlike the controls beside a verdict (measures/other_heads.py), which lie outside the circuit and in
its layers, these are drawn from all of the model: a circuit chosen at random. What a
set costs is given as a share of the CIRCUIT's importance, so that the numbers compare with its DCV.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member, Mlp, heads_of
from forgetguard.calibration.prepared import Prepared
from forgetguard.gate.runner import capability_of
from forgetguard.measures.interventions import Progress
from forgetguard.measures.samples import TUNED
from forgetguard.measures.vulnerability import ForeignHeads, patched
from forgetguard.patching.budget import memory_errors

_TOGETHER = 8  # sets that share a wavefront


@dataclass(frozen=True, slots=True, eq=False)
class HeadSets:
    """Random sets of members and, for each, the mean damage over the circuit's mean importance,
    float64 [set]."""

    sets: tuple[tuple[Member, ...], ...]
    values: npt.NDArray[np.float64]

    def rank(self, value: float) -> float:
        """How often a random set reads `value` or more, counting the circuit as one draw more:
        (1 + sets at or above) / (1 + sets). A Monte-Carlo p-value (Davison and Hinkley 1997, 4.2).
        """
        return float((1 + (self.values >= value).sum()) / (1 + len(self.values)))


def any_sets(
    circuit: Sequence[Member], members: Sequence[Member], draws: int, seed: str
) -> tuple[tuple[Member, ...], ...]:
    """`draws` sets with as many heads, and as many MLP layers, as the circuit, from all of
    `members`; the circuit's own are among them."""
    rng = random.Random(f"random head sets {seed}")
    heads = sorted(heads_of(members))
    mlps = sorted(one for one in members if isinstance(one, Mlp))
    n_heads = len(heads_of(circuit))
    return tuple(
        tuple(sorted([*rng.sample(heads, n_heads), *rng.sample(mlps, len(circuit) - n_heads)]))
        for _ in range(draws)
    )


def read_sets(
    anatomy: Anatomy,
    prepared: Prepared,
    foreign: ForeignHeads,
    sets: Sequence[tuple[Member, ...]],
    *,
    progress: Progress | None = None,
) -> HeadSets:
    """Patch each of `sets`, whose members `foreign` must hold, from the tuned model into the base.

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    capability, site = capability_of(prepared.part), prepared.spec.site
    distinct = list(dict.fromkeys(sets))
    lost: list[float] = []
    with memory_errors(f"patching random heads beside circuit {prepared.spec.name}"):
        circuit = prepared.spec.members
        worth = patched(anatomy, capability, [circuit], {})
        importance = float(worth.importance(circuit).mean())
        for start in range(0, len(distinct), _TOGETHER):
            if progress is not None:
                progress(start, len(distinct))
            block = distinct[start : start + _TOGETHER]
            found = patched(
                anatomy, capability, block, {TUNED: foreign}, importance=False, site=site
            )
            lost += [float(found.damage(one, TUNED).mean()) / importance for one in block]
    by_set = dict(zip(distinct, lost, strict=True))
    return HeadSets(tuple(sets), np.array([by_set[one] for one in sets]))
