"""The measure `dcv.all`: DCV of all heads of the model at once, so that loss outside the circuit
shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forgetguard.anatomy.members import Member
from forgetguard.measures.dcv_circuit import loss, series_of
from forgetguard.measures.measure import SHARE, Estimator, Measure, Sampled
from forgetguard.measures.samples import ALL_HEADS


def patched(_: Sequence[Member], heads: Sequence[Member]) -> Mapping[str, tuple[Member, ...]]:
    """Every head of the model."""
    return {ALL_HEADS: tuple(heads)}


MEASURE = Measure(
    key="dcv.all",
    about="DCV of all heads of the model at once, the circuit's and the others",
    unit=SHARE,
    sampled=Sampled.PAIRS,
    estimator=Estimator.RATIO,
    patched=patched,
    series=series_of(ALL_HEADS),
    loss=loss,
    needs_capability=True,
    graded=True,
)
