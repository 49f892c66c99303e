"""The prompt pairs of a circuit, look by look.

With `most` in its file, a circuit is measured on `count` pairs first, then on twice as many, up to
`most`, for as long as a limit is undecided. The pairs of a look are the first ones of the next, so
every look reads what a fixed count of as many pairs would read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from forgetguard.capabilities.batches import make_batches
from forgetguard.capabilities.capability import Capability, EncodedCapability
from forgetguard.gate import spending
from forgetguard.gate.declaration import CircuitSpec, InlinePairs, TaskPairs


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """parts: the pairs that each look adds, ready to be run. counts: the pairs at each look; empty
    where drawing is not sequential, and then there is one part."""

    whole: EncodedCapability
    parts: tuple[EncodedCapability, ...]
    counts: tuple[int, ...] = ()


def as_capability(spec: CircuitSpec) -> Capability:
    """The capability that a circuit file declares, with all pairs that may be drawn."""
    given: dict[str, Any]
    if isinstance(spec.pairs, TaskPairs):
        count = spec.pairs.most or spec.pairs.count
        given = {"task": spec.pairs.task, "count": count, "seed": spec.pairs.seed}
    elif isinstance(spec.pairs, InlinePairs):
        given = {"pairs": spec.pairs.pairs}
    else:
        given = {"pairs": spec.pairs.pairs[: spec.pairs.most or spec.pairs.count]}
    return Capability(
        name=spec.capability, readout=spec.readout, chat_template=spec.chat_template, **given
    )


def looks_of(spec: CircuitSpec, whole: EncodedCapability) -> Looks:
    """The looks at a circuit's pairs, all of which are in `whole`."""
    first = None if isinstance(spec.pairs, InlinePairs) else spec.pairs.count
    most = None if isinstance(spec.pairs, InlinePairs) else spec.pairs.most
    if most is None or first is None:
        return Looks(whole, (whole,))
    counts = spending.looks(min(first, whole.n_pairs), whole.n_pairs)
    return Looks(whole, _parts(whole, counts), counts)


def _parts(whole: EncodedCapability, counts: Sequence[int]) -> tuple[EncodedCapability, ...]:
    parts = []
    for start, end in zip((0, *counts), counts, strict=False):
        pairs = whole.encoded.pairs[start:end]
        encoded = replace(whole.encoded, pairs=pairs)
        parts.append(EncodedCapability(whole.capability, encoded, make_batches(pairs)))
    return tuple(parts)
