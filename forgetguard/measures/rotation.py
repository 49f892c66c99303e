"""The measure `rotation`: how far each matrix's leading singular subspaces turned, as a multiple of
what a random change of the same size turns them.

After arXiv 2509.12235 (measures/singular_rotation.py). Exact: nothing is sampled. Matrices are read
from the files one at a time; a matrix takes three decompositions in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.measures.measure import RATIO_TO_CONTROL, Estimator, Measure, Sampled, Subjects

if TYPE_CHECKING:
    from forgetguard.checkpoints.options import LoadOptions
    from forgetguard.checkpoints.spec import CheckpointSpec


def on_disk(
    base: CheckpointSpec, other: CheckpointSpec, options: LoadOptions
) -> Mapping[str, float]:
    """By matrix, the mean angle over that of the control; 0 where nothing changed.

    Raises:
        CheckpointError: the checkpoints' weights do not match, or cannot be read.
        MeasurementError: the model has no matrix of the kinds that are read, or a decomposition
            does not converge.
    """
    from forgetguard.measures.singular_rotation import over_control

    return over_control(base, other, options)


MEASURE = Measure(
    key="rotation",
    about="turn of each matrix's top singular subspaces (q, k, v, down projections)",
    unit=RATIO_TO_CONTROL,
    sampled=Sampled.NOTHING,
    subjects=Subjects.MATRICES,
    estimator=Estimator.EXACT,
    on_disk=on_disk,
)
