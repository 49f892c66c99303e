"""The measure `dcv.all`: DCV of all heads of the model at once, so that loss outside the circuit
shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forgetguard.anatomy.members import Member
from forgetguard.measures.dcv_circuit import dcv
from forgetguard.measures.samples import ALL_HEADS


def patched(_: Sequence[Member], heads: Sequence[Member]) -> Mapping[str, tuple[Member, ...]]:
    """Every head of the model."""
    return {ALL_HEADS: tuple(heads)}


MEASURE = dcv(
    "dcv.all",
    "DCV of all heads of the model at once, the circuit's and the others",
    patched,
    ALL_HEADS,
)
