"""Controls of a circuit's damage: other sets of heads of the same model, patched on the same pairs.

A circuit that lost something says more where other heads did not: as many heads drawn at random
from outside it, and the circuits of other capabilities, without the heads that they share with it.
The random sets have as many heads in each layer as the circuit, for where in the model a head is
patched bears on what it costs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from forgetguard.anatomy.members import Head, Member, heads_of
from forgetguard.measures.samples import Control, Note, member_names

_TRIES = 50  # draws for each set that is asked for, before too few are taken to exist


@dataclass(frozen=True, slots=True)
class OtherHeads:
    """Members to compare a circuit with; none where there are no others, and `note` says why."""

    name: str
    members: tuple[Member, ...]
    note: str = ""

    @property
    def control(self) -> Control:
        """As samples have it."""
        note = Note("other_heads", {"why": self.note}) if self.note else None
        return Control(self.name, member_names(self.members), note)


def random_sets(
    circuit: Sequence[Member], everything: Sequence[Member], count: int, *, seed: int
) -> tuple[OtherHeads, ...]:
    """Up to `count` different sets of heads outside the circuit, each of its size and layers.

    A layer that has too few heads outside it is made up for by heads of other layers; where too
    few are left in all, the set is smaller, and its note says so. MLP layers of the circuit are
    replaced by other MLP layers.

    Args:
        circuit: its members.
        everything: every member of the model.
        seed: the same seed gives the same sets, whatever the order of `circuit` and `everything`.
    """
    outside = sorted(set(everything) - set(circuit))
    rng = random.Random(seed)
    found: dict[tuple[Member, ...], None] = {}
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        found[_random_set(circuit, outside, rng)] = None
    sets = [
        OtherHeads(
            f"random {number}",
            members,
            f"{len(members)} of {len(circuit)}, no more are left" * (len(members) < len(circuit)),
        )
        for number, members in enumerate(found, start=1)
        if members
    ]
    if len(sets) < count:
        why = f"{count} random sets were asked for and only {len(sets)} exist outside the circuit"
        sets.append(OtherHeads("random", (), why))
    return tuple(sets)


def _random_set(
    circuit: Sequence[Member], outside: Sequence[Member], rng: random.Random
) -> tuple[Member, ...]:
    chosen: list[Member] = []
    layers = Counter(head.layer for head in heads_of(circuit))
    for layer, wanted in sorted(layers.items()):
        here = [head for head in heads_of(outside) if head.layer == layer]
        chosen += rng.sample(here, min(wanted, len(here)))
    rest = [head for head in heads_of(outside) if head not in chosen]
    chosen += rng.sample(rest, min(layers.total() - len(chosen), len(rest)))
    mlps = [member for member in outside if not isinstance(member, Head)]
    wanted = len(circuit) - layers.total()
    chosen += rng.sample(mlps, min(wanted, len(mlps)))
    return tuple(sorted(chosen))


def other_circuit(name: str, other: Sequence[Member], circuit: Sequence[Member]) -> OtherHeads:
    """Another capability's circuit, without what it shares with this one: shared heads would bring
    this circuit's own damage into its control."""
    members = tuple(sorted(set(other) - set(circuit)))
    if not members:
        return OtherHeads(name, (), f"all its {len(other)} members are this circuit's too")
    if len(members) == len(other):
        return OtherHeads(name, members)
    return OtherHeads(name, members, f"{len(members)} of {len(other)}, the rest is shared")
