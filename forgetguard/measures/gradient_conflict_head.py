"""The measure `gradient.conflict.head`: `gradient.conflict` in each head's slices of the query and
output projections (measures/interference.py)."""

from __future__ import annotations

from forgetguard.measures.gradient_conflict import conflict
from forgetguard.measures.measure import Subjects

MEASURE = conflict(
    "head", "gradient.conflict in each head's query and output slices alone", Subjects.HEADS
)
