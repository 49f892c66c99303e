"""The measure `dcv.head`: DCV of every member of the circuit, patched one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forgetguard.anatomy.members import Member
from forgetguard.measures.dcv_circuit import dcv
from forgetguard.measures.measure import Subjects


def patched(circuit: Sequence[Member], _: Sequence[Member]) -> Mapping[str, tuple[Member, ...]]:
    """Every member alone."""
    return {str(member): (member,) for member in circuit}


MEASURE = replace(
    dcv(
        "dcv.head",
        "DCV of every head of the circuit, one by one, corrected for their number",
        patched,
    ),
    subjects=Subjects.MEMBERS,
    has_floor=True,
)
