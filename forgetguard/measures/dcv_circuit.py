"""The measure `dcv.circuit`: differential circuit vulnerability, all members patched at once.

    DCV = mean_i[ F(base, x_i) - F(base, x_i with the circuit from (tuned, x_i)) ] / I(base)

This form is ours (measures/vulnerability.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forgetguard.anatomy.members import Member
from forgetguard.measures.measure import SHARE, Estimator, Measure, Patched, Sampled, Series
from forgetguard.measures.samples import BASE, CIRCUIT, DAMAGE, IMPORTANCE, FloatArray, Samples


def patched(circuit: Sequence[Member], _: Sequence[Member]) -> Mapping[str, tuple[Member, ...]]:
    """The whole circuit."""
    return {CIRCUIT: tuple(circuit)}


def loss(samples: Samples) -> FloatArray | None:
    """What the tuned circuit costs on each pair."""
    return samples.get(DAMAGE, CIRCUIT)


def dcv(key: str, about: str, patched: Patched, part: str = "") -> Measure:
    """The measure of the damage that the other model's contributions do, and what the base's are
    worth: of one part, or of the member that is asked for."""

    def series(samples: Samples, subject: str, role: str) -> Series:
        of = part or subject
        return Series(samples.need(DAMAGE, of, role), samples.need(IMPORTANCE, of, BASE))

    return Measure(
        key=key,
        about=about,
        unit=SHARE,
        sampled=Sampled.PAIRS,
        estimator=Estimator.RATIO,
        patched=patched,
        series=series,
        loss=loss,
        needs_capability=True,
        graded=True,
    )


MEASURE = dcv(
    "dcv.circuit", "DCV of the whole circuit, all its heads patched at once", patched, CIRCUIT
)
