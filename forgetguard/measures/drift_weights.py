"""The measure `drift.weights`: how far all weights moved, relative to their size, from the files.

It is exact: nothing is sampled. It is no measure of forgetting by itself: RL's Razor (arXiv
2509.04259) found that it does not explain forgetting, on our tiny family it does
(docs/reference.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.measures.measure import Estimator, Measure, Sampled, Unit
from forgetguard.measures.samples import WHOLE

if TYPE_CHECKING:
    from forgetguard.checkpoints.options import LoadOptions
    from forgetguard.checkpoints.spec import CheckpointSpec


def on_disk(
    base: CheckpointSpec, other: CheckpointSpec, options: LoadOptions
) -> Mapping[str, float]:
    """Frobenius norm of the change over that of the base, of all weights together.

    Raises:
        CheckpointError: the checkpoints' weights do not match, or cannot be read.
        MeasurementError: a weight is NaN or infinite.
    """
    from forgetguard.measures.parameter_drift import relative_drift

    return {WHOLE: relative_drift(base, other, options)}


MEASURE = Measure(
    key="drift.weights",
    about="|tuned - base| / |base| of all weights, Frobenius norm",
    unit=Unit("share of the norm", 1.0, "at 1 the change is as large as the weights"),
    sampled=Sampled.NOTHING,
    estimator=Estimator.EXACT,
    on_disk=on_disk,
)
