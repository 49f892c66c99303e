"""The measure `cka.layer`: how far the residual stream after each layer lost its geometry, as 1
minus linear CKA between base and tuned.

CKA is no mean over prompts, so what is averaged are its jackknife pseudo-values
(measures/representation_drift.py): their mean estimates it, and prompts can be resampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.measures.measure import Measure, Opened, Sampled, Subjects, Unit
from forgetguard.measures.samples import FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.prompt_pass import Reader
    from forgetguard.measures.representation_drift import Streams


def streams(model: Opened) -> Reader[Streams]:
    """The residual stream at each prompt's last token, after every layer."""
    from forgetguard.measures.representation_drift import capturing

    return capturing(model.passages)


def watch(model: Opened, _: object) -> Reader[Streams]:
    """See `streams`."""
    return model.once(streams)


def compare(base: Opened, kept: Streams) -> Mapping[str, FloatArray]:
    """Pseudo-values of 1 - CKA, [prompt] by layer.

    Raises:
        MeasurementError: fewer than 5 prompts.
    """
    from forgetguard.measures.representation_drift import pseudo_values

    found = pseudo_values(base.seen(streams), kept)
    return {f"layer {layer}": 1.0 - values for layer, values in enumerate(found)}


MEASURE = Measure(
    key="cka.layer",
    about="1 - linear CKA of the residual stream after each layer, unbiased",
    unit=Unit("1 - CKA", 1.0, "at 1 the two are unrelated (write 0.10 to allow a CKA of 0.90)"),
    sampled=Sampled.PROMPTS,
    subjects=Subjects.LAYERS,
    watch=watch,
    compare=compare,
    by_unit=False,
)
