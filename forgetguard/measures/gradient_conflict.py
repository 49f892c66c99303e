"""The measure `gradient.conflict`: whether the new task's steps go up the loss of what must be
kept, as minus the cosine of the base's loss gradients on the two.

After arXiv 2601.18699, which finds that the alignment of gradients foretells how much is forgotten;
the form is ours (measures/interference.py). It is of the base and the two tasks: the tuned model
has no part in it. 1: the new task undoes the prior one as fast as it can, 0: to first order they do
not touch, -1: they pull alike. A cosine is no mean over prompts, so what is averaged is the
cosine plus each prompt's influence on it; the new task's prompts are taken as they are. Where few
prompts, or one of them, make up the whole gradient, no such interval holds (gate/estimate.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.errors import MeasurementError
from forgetguard.measures.measure import Measure, Opened, Sampled, Series, Subjects, Unit
from forgetguard.measures.samples import FloatArray, Key, Samples

if TYPE_CHECKING:
    from forgetguard.measures.interference import Cosine, Part

SHARES = "gradient.share"  # by the same subjects, what each prompt makes of |g|^2


def cosines(base: Opened) -> dict[Part, Cosine]:
    """Of the file's prompts with the new task's.

    Raises:
        MeasurementError: the two are the same prompts; or as `interference.cosines`.
    """
    from forgetguard.measures.interference import cosines

    if not base.new_task:
        raise MeasurementError(
            "the new task's prompts are not here: a results file does not hold them, so its "
            "gradients cannot be measured again; run the gate file"
        )
    if {*base.passages} == {*base.new_task}:
        raise MeasurementError(
            "new_task: holds the prompts that it is compared with: give prompts of the new task"
        )
    return cosines(base.anatomy, base.passages, base.new_task, vocabulary=base.vocabulary)


def conflict(of: str, about: str, subjects: Subjects) -> Measure:
    """The measure on the parts of one kind: "" for all weights, "matrix", "head"."""
    key = f"gradient.conflict.{of}".rstrip(".")

    def compare(base: Opened, kept: object) -> Mapping[str, FloatArray]:
        """[prompt] by part (raises MeasurementError as `cosines`)."""
        found = {name: one for (kind, name), one in base.once(cosines).items() if kind == of}
        base.beside.update({Key(SHARES, name, ""): one.shares for name, one in found.items()})
        return {name: -one.values for name, one in found.items()}

    def series(samples: Samples, subject: str, role: str) -> Series:
        shares = samples.get(SHARES, subject, role)
        if shares is None and samples.get(key, subject, role) is not None:
            raise MeasurementError(
                f"{key} was measured by an older version, which did not keep what each prompt "
                "makes of the gradient: measure it anew"
            )
        return Series(samples.need(key, subject, role), shares=shares)

    return Measure(
        key=key,
        about=about,
        unit=Unit("minus cosine", 1.0, "at 1 the new task undoes the prior one head on"),
        sampled=Sampled.PROMPTS,
        subjects=subjects,
        compare=compare,
        series=series,
        by_unit=False,
        needs_completions=True,
        needs_new_task=True,
        takes="`new_task:`; of the base two backward passes a prompt, one a new prompt",
    )


MEASURE = conflict(
    "",
    "minus the cosine of the base's loss gradients on these prompts and on the new task's",
    Subjects.WHOLE,
)
