"""The measure `drift.layer`: how far the residual stream after each layer moved, as a share of its
length.

Linear, where `cka.layer` compares geometry: a fine-tuned model shares its base's axes, so a turn or
a stretch of the whole stream counts here, which CKA does not see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forgetguard.measures.cka_layer import of_streams
from forgetguard.measures.measure import Unit
from forgetguard.measures.samples import FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.representation_drift import Streams


def moved(base: Streams, tuned: Streams) -> FloatArray:
    """|tuned - base| / |base| of the stream at each prompt's last token.

    Raises:
        MeasurementError: the two streams are of other shapes.
    """
    from forgetguard.measures.representation_drift import distances

    return distances(base, tuned)


MEASURE = of_streams(
    "drift.layer",
    "|tuned - base| / |base| of the residual stream after each layer, mean over prompts",
    Unit("share of the length"),
    moved,
)
