"""Scored heads, and the circuit that a scoring suggests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forgetguard.anatomy.heads import Head


@dataclass(frozen=True, slots=True)
class ScoredHeads:
    """What an algorithm found on one base and one capability.

    scores: every head's importance, in nats, most important (largest in size) first.
    whole: what patching every head together loses of the readout, in nats.
    curve: the share of `whole` that patching the first k heads together loses, for k = 1, 2, ...,
        in the order of `scores`.
    method: the algorithm's name.
    """

    scores: Mapping[Head, float]
    whole: float
    curve: tuple[float, ...]
    method: str

    def circuit(self, share: float = 0.8, each: float = 0.1) -> tuple[Head, ...]:
        """The fewest top heads that together lose at least `share` of the whole loss, and every
        further head that alone loses (or gains) at least `each` of it, in order of layer and index.

        The first alone would stop at a bottleneck: where one early head carries everything, the
        heads that read from it add nothing to the loss, and damage to them would go unseen.
        """
        heads = tuple(self.scores)
        together = next((k for k, lost in enumerate(self.curve, 1) if lost >= share), len(heads))
        alone = sum(abs(score) >= each * self.whole for score in self.scores.values())
        return tuple(sorted(heads[: max(together, alone)]))
