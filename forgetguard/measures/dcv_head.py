"""The measure `dcv.head`: DCV of every member of the circuit, patched one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forgetguard.anatomy.members import Member
from forgetguard.measures.dcv_circuit import loss, series_of
from forgetguard.measures.measure import SHARE, Estimator, Measure, Sampled, Subjects


def patched(circuit: Sequence[Member], _: Sequence[Member]) -> Mapping[str, tuple[Member, ...]]:
    """Every member alone."""
    return {str(member): (member,) for member in circuit}


MEASURE = Measure(
    key="dcv.head",
    about="DCV of every head of the circuit, one by one, corrected for their number",
    unit=SHARE,
    sampled=Sampled.PAIRS,
    subjects=Subjects.MEMBERS,
    estimator=Estimator.RATIO,
    patched=patched,
    series=series_of(),
    loss=loss,
    needs_capability=True,
    graded=True,
    has_floor=True,
)
