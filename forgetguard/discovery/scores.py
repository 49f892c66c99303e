"""Scored heads, and the circuit that a scoring suggests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forgetguard.anatomy.heads import Head


@dataclass(frozen=True, slots=True)
class ScoredHeads:
    """What an algorithm found on one base and one capability.

    scores: every head's importance, in nats, most important (largest in size) first.
    curve: the share of the readout's whole loss (all heads patched) that patching the first k heads
        together loses, for k = 1, 2, ..., in the order of `scores`.
    method: the algorithm's name.
    """

    scores: Mapping[Head, float]
    curve: tuple[float, ...]
    method: str

    def smallest(self, share: float) -> tuple[Head, ...]:
        """The fewest top heads that together lose at least `share` of the whole loss; all heads
        if none do."""
        heads = tuple(self.scores)
        for size, reached in enumerate(self.curve, start=1):
            if reached >= share:
                return heads[:size]
        return heads
