"""What a discovery algorithm returns: the members of a model, ranked by how much they matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.measures.interventions import Saved

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, slots=True)
class Ranking:
    """What an algorithm found on one base and one capability.

    scores: every member's score, the most important first. Its unit is the method's: nats of the
        readout for the patching methods (negative: the member works against the capability), a mask
        value in [0, 1] for the masking ones.
    method: the algorithm's name.
    settings: what it was run with, as plain values.
    selected: the set that the method itself singles out (masking: m > 0.5), where it does.
    findings: what else it has to say, as plain values that a circuit file can hold.
    """

    scores: Mapping[Member, float]
    method: str
    settings: Mapping[str, object] = field(default_factory=dict)
    selected: tuple[Member, ...] | None = None
    findings: Mapping[str, object] = field(default_factory=dict)

    @property
    def order(self) -> tuple[Member, ...]:
        """The members, the most important first."""
        return tuple(self.scores)


class Method(Protocol):
    """A discovery algorithm. Beyond these it takes its own settings by keyword."""

    def __call__(
        self,
        anatomy: Anatomy,
        capability: EncodedCapability,
        members: Sequence[Member],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        saved: Saved | None = None,
    ) -> Ranking: ...


def by_size(scores: Mapping[Member, float]) -> dict[Member, float]:
    """`scores` with the largest in absolute value first, ties in order of layer and index: what
    works against a capability is a part of its circuit too."""
    return {one: float(scores[one]) for one in sorted(scores, key=lambda m: (-abs(scores[m]), m))}
