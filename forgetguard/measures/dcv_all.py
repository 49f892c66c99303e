"""The measure `dcv.all`: DCV of all heads of the model at once, so that loss outside the circuit
shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forgetguard.anatomy.members import Member
from forgetguard.measures.dcv_circuit import loss
from forgetguard.measures.measure import SHARE, Estimator, Measure, Sampled, Series
from forgetguard.measures.samples import ALL_HEADS, BASE, DAMAGE, IMPORTANCE, Samples


def patched(_: Sequence[Member], heads: Sequence[Member]) -> Mapping[str, tuple[Member, ...]]:
    """Every head of the model."""
    return {ALL_HEADS: tuple(heads)}


def series(samples: Samples, _: str, role: str) -> Series:
    """The damage that all of this model's heads do, and what they are worth."""
    return Series(samples.need(DAMAGE, ALL_HEADS, role), samples.need(IMPORTANCE, ALL_HEADS, BASE))


MEASURE = Measure(
    key="dcv.all",
    about="DCV of all heads of the model at once, the circuit's and the others",
    unit=SHARE,
    sampled=Sampled.PAIRS,
    estimator=Estimator.RATIO,
    patched=patched,
    series=series,
    loss=loss,
    needs_capability=True,
    graded=True,
)
