"""The measure `cka.layer`: how far the residual stream after each layer lost its geometry, as 1
minus linear CKA between base and tuned.

CKA is no mean over prompts, so what is averaged are its jackknife pseudo-values
(measures/representation_drift.py): their mean estimates it, and prompts can be resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
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


def of_streams(
    key: str, about: str, unit: Unit, take: Callable[[Streams, Streams], FloatArray]
) -> Measure:
    """The measure of what `take` makes of the base's stream and another's, [layer, prompt]."""

    def compare(base: Opened, kept: Streams) -> Mapping[str, FloatArray]:
        """[prompt] by layer."""
        found = take(base.seen(streams), kept)
        return {f"layer {layer}": values for layer, values in enumerate(found)}

    return Measure(
        key=key,
        about=about,
        unit=unit,
        sampled=Sampled.PROMPTS,
        subjects=Subjects.LAYERS,
        watch=watch,
        compare=compare,
    )


def unlike(base: Streams, tuned: Streams) -> FloatArray:
    """Pseudo-values of 1 - CKA.

    Raises:
        MeasurementError: fewer than 5 prompts.
    """
    from forgetguard.measures.representation_drift import pseudo_values

    return 1.0 - pseudo_values(base, tuned)


MEASURE = replace(
    of_streams(
        "cka.layer",
        "1 - linear CKA of the residual stream after each layer, unbiased",
        Unit("1 - CKA", 1.0, "at 1 the two are unrelated (write 0.10 to allow a CKA of 0.90)"),
        unlike,
    ),
    by_unit=False,
)
