"""The measure `gradient.conflict`: whether the new task's steps go up the loss of what must be
kept, as minus the cosine of the base's loss gradients on the two.

After arXiv 2601.18699, which finds that the alignment of gradients foretells how much is forgotten;
the form is ours (measures/interference.py). It is of the base and the two tasks: the tuned model
has no part in it. 1: the new task undoes the prior one as fast as it can, 0: to first order they do
not touch, -1: they pull alike. A cosine is no mean over prompts, so what is averaged is the
cosine plus each prompt's influence on it; the new task's prompts are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.errors import MeasurementError
from forgetguard.measures.measure import Measure, Opened, Sampled, Unit
from forgetguard.measures.samples import WHOLE, FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.interference import Cosines

UNIT = Unit("minus cosine", 1.0, "at 1 the new task undoes the prior one head on")


def cosines(base: Opened) -> Cosines:
    """Of the file's prompts with the new task's.

    Raises:
        MeasurementError: the two are the same prompts; or as `interference.cosines`.
    """
    from forgetguard.measures.interference import cosines

    if {*base.passages} == {*base.new_task}:
        raise MeasurementError(
            "new_task: holds the prompts that it is compared with: give prompts of the new task"
        )
    return cosines(base.anatomy, base.passages, base.new_task, vocabulary=base.vocabulary)


def compare(base: Opened, kept: object) -> Mapping[str, FloatArray]:
    """Of all weights, [prompt] (raises MeasurementError as `cosines`)."""
    return {WHOLE: -base.once(cosines).whole}


MEASURE = Measure(
    key="gradient.conflict",
    about="minus the cosine of the base's loss gradients on these prompts and on the new task's",
    unit=UNIT,
    sampled=Sampled.PROMPTS,
    compare=compare,
    by_unit=False,
    needs_completions=True,
    needs_new_task=True,
    takes="`new_task:`; of the base two backward passes a prompt, one a new prompt",
)
