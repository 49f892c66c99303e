"""The measure `gradient.conflict.matrix`: `gradient.conflict` in each weight matrix alone."""

from __future__ import annotations

from collections.abc import Mapping

from forgetguard.measures.gradient_conflict import UNIT, cosines
from forgetguard.measures.measure import Measure, Opened, Sampled, Subjects
from forgetguard.measures.samples import FloatArray


def compare(base: Opened, kept: object) -> Mapping[str, FloatArray]:
    """By matrix, [prompt] (raises MeasurementError as `cosines`)."""
    return {name: -values for name, values in base.once(cosines).matrices.items()}


MEASURE = Measure(
    key="gradient.conflict.matrix",
    about="gradient.conflict in each weight matrix alone",
    unit=UNIT,
    sampled=Sampled.PROMPTS,
    subjects=Subjects.MATRICES,
    compare=compare,
    by_unit=False,
    needs_completions=True,
    needs_new_task=True,
    takes="`new_task:`; of the base two backward passes a prompt, one a new prompt",
)
