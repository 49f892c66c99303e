"""What a discovery algorithm returns: the members of a model, ranked by how much they matter."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.measures.interventions import FloatArray, Passes, Saved

Progress = Callable[[str, int, int], None]  # what, done, total


def of_stage(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    """`progress` of one stage; None where there is nobody to be told."""
    return None if progress is None else partial(progress, what)


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
    patched: the members whose score is an exact effect in nats: each was patched alone.
    by_half: the scores from either half of the pairs alone, where they cost nothing.
    """

    scores: Mapping[Member, float]
    method: str
    settings: Mapping[str, object] = field(default_factory=dict)
    selected: tuple[Member, ...] | None = None
    findings: Mapping[str, object] = field(default_factory=dict)
    patched: frozenset[Member] = frozenset()
    by_half: tuple[Mapping[Member, float], Mapping[Member, float]] | None = None

    @property
    def order(self) -> tuple[Member, ...]:
        """The members, the most important first."""
        return tuple(self.scores)

    def signed(self) -> Ranking:
        """The same scores, what works against the capability last."""
        return replace(self, scores=by_sign(self.scores, self.patched))


class Method(Protocol):
    """A discovery algorithm. Beyond these it takes its own settings by keyword.

    `passes`, of these members and pairs, are those that were needed before it.
    """

    def __call__(
        self,
        anatomy: Anatomy,
        capability: EncodedCapability,
        members: Sequence[Member],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        saved: Saved | None = None,
        passes: Passes | None = None,
    ) -> Ranking: ...


def by_size(scores: Mapping[Member, float]) -> dict[Member, float]:
    """`scores` with the largest in absolute value first, ties in order of layer and index: what
    works against a capability is a part of its circuit too."""
    return {one: float(scores[one]) for one in sorted(scores, key=lambda m: (-abs(scores[m]), m))}


def by_sign(scores: Mapping[Member, float], patched: Collection[Member]) -> dict[Member, float]:
    """`scores` with the largest first and the most negative last; between the two, by their
    approximations, the members that were not `patched` alone."""

    def place(one: Member) -> tuple[int, float, Member]:
        known = one in patched
        return (0 if known and scores[one] > 0 else 2 if known else 1), -scores[one], one

    return {one: float(scores[one]) for one in sorted(scores, key=place)}


def from_halves(
    members: Sequence[Member], values: FloatArray
) -> tuple[dict[Member, float], dict[Member, float]]:
    """Mean scores from two halves of the pairs, for scores by pair, [member, pair]; the pairs are
    shuffled (a task may draw its templates in turn), always in the same way."""
    order = list(range(values.shape[1]))
    random.Random("stability").shuffle(order)
    half = len(order) // 2
    first, second = (
        dict(zip(members, values[:, part].mean(axis=1).tolist(), strict=True))
        for part in (order[:half], order[half:])
    )
    return first, second
