"""The measure `heads.disrupted`: the share of heads that are severely disrupted, in each third of
the model's layers.

After arXiv 2601.18699, which counts disrupted heads and gives no definition that could be checked;
this one is ours. Every head of the model is patched alone. Those that carry something count: of an
importance, either way, of a hundredth of the circuit's. On one pair a head is severely disrupted
where its damage is a quarter of its importance or more, half of what a silenced head reads
(docs/measures.md). Its null is the same the other way: what moves a readout at random helps as
often as it harms, so a head that gains as much counts against. The share is the mean over pairs of
(disrupted - gained) / heads: 0 where nothing happened, and of a change without direction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from forgetguard.anatomy.members import Head, Member, parse_member
from forgetguard.measures.dcv_circuit import loss
from forgetguard.measures.measure import Measure, Sampled, Series, Subjects, Unit
from forgetguard.measures.samples import BASE, CIRCUIT, DAMAGE, IMPORTANCE, Samples

BANDS = 3
CARRIES = 0.01  # of the circuit's importance
SEVERE = 0.25  # a silenced head reads about 0.5: 0.49 on the tiny base, 0.69 on SmolLM2
_HEAD = re.compile(r"L\d+H\d+")


def patched(_: Sequence[Member], heads: Sequence[Member]) -> Mapping[str, tuple[Member, ...]]:
    """Every head of the model, alone."""
    return {str(head): (head,) for head in heads}


def bands(samples: Samples) -> dict[str, tuple[str, ...]]:
    """The heads that carry something in each third of the layers; a third without any is left out.

    Raises:
        MeasurementError: the circuit's importance was not measured.
    """
    names = [one for one in samples.subjects(IMPORTANCE, BASE) if _HEAD.fullmatch(one)]
    layers = {name: head.layer for name in names if isinstance(head := parse_member(name), Head)}
    least = CARRIES * abs(samples.need(IMPORTANCE, CIRCUIT, BASE).mean())
    count = max(layers.values()) + 1
    found: dict[str, tuple[str, ...]] = {}
    for band in range(min(BANDS, count)):
        first, end = (round(count * at / min(BANDS, count)) for at in (band, band + 1))
        inside = tuple(
            name
            for name in names
            if first <= layers[name] < end
            and abs(samples.need(IMPORTANCE, name, BASE).mean()) >= max(least, 1e-300)
        )
        if inside:
            found[f"layers {first} to {end - 1}" if end - first > 1 else f"layer {first}"] = inside
    return found


def series(samples: Samples, subject: str, role: str) -> Series:
    """(disrupted - gained) / heads of one band, pair by pair."""
    import numpy as np

    heads = bands(samples)[subject]
    vulnerable = np.array(
        [
            samples.need(DAMAGE, one, role) / samples.need(IMPORTANCE, one, BASE).mean()
            for one in heads
        ]
    )
    harmed, gained = vulnerable >= SEVERE, vulnerable <= -SEVERE
    return Series((harmed.astype(np.float64) - gained).mean(axis=0))


MEASURE = Measure(
    key="heads.disrupted",
    about="share of heads that lost a quarter of their importance, less those that gained as much",
    unit=Unit("share of the heads", 1.0, "at 1 every head is (write 0.10 to allow one in ten)"),
    sampled=Sampled.PAIRS,
    subjects=Subjects.BANDS,
    patched=patched,
    series=series,
    named=lambda samples: tuple(bands(samples)),
    loss=loss,
    needs_capability=True,
    graded=True,
    by_unit=False,
    takes="a circuit; every head patched alone in the base",
)
