"""The measure `drift.layer`: how far the residual stream after each layer moved, as a share of its
length.

Linear, where `cka.layer` compares geometry: a fine-tuned model shares its base's axes, so a turn or
a stretch of the whole stream counts here, which CKA does not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.measures.cka_layer import streams, watch
from forgetguard.measures.measure import Measure, Opened, Sampled, Subjects, Unit
from forgetguard.measures.samples import FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.representation_drift import Streams


def compare(base: Opened, kept: Streams) -> Mapping[str, FloatArray]:
    """|tuned - base| / |base| of the stream at each prompt's last token, [prompt] by layer.

    Raises:
        MeasurementError: the two streams are of other shapes.
    """
    from forgetguard.measures.representation_drift import distances

    found = distances(base.seen(streams), kept)
    return {f"layer {layer}": values for layer, values in enumerate(found)}


MEASURE = Measure(
    key="drift.layer",
    about="|tuned - base| / |base| of the residual stream after each layer, mean over prompts",
    unit=Unit("share of the length"),
    sampled=Sampled.PROMPTS,
    subjects=Subjects.LAYERS,
    watch=watch,
    compare=compare,
)
