"""The measure `gradient.conflict.matrix`: `gradient.conflict` in each weight matrix alone."""

from __future__ import annotations

from forgetguard.measures.gradient_conflict import conflict
from forgetguard.measures.measure import Subjects

MEASURE = conflict("matrix", "gradient.conflict in each weight matrix alone", Subjects.MATRICES)
