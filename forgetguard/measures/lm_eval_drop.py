"""The measure `lm_eval.drop`: what tuned lost of each lm-eval task's metric, paired by document."""

from __future__ import annotations

from collections.abc import Mapping

from forgetguard.measures.documents import CHANCE, LIKELIHOOD, SCORE, Scores, lost, places_of
from forgetguard.measures.measure import (
    Estimator,
    Measure,
    Opened,
    Sampled,
    Series,
    Subjects,
    Unit,
)
from forgetguard.measures.samples import BASE, FloatArray, Samples

UNIT = Unit(
    "share of the documents", 1.0, "no score drops by more (write 0.05 for five points in 100)"
)


def read(model: Opened) -> Scores:
    """lm-eval's scores of a model on every document."""
    from forgetguard.measures.harness import scores

    return model.once(scores)


def compare(base: Opened, kept: Scores) -> Mapping[str, FloatArray]:
    """Score of base minus score of the other model, [document] by `task metric`."""
    from forgetguard.measures.harness import paired

    ours, theirs = paired(base, kept)
    return {one: values - theirs.of[SCORE][one] for one, values in ours.of[SCORE].items()}


def series(samples: Samples, subject: str, role: str) -> Series:
    """The scores of the subject's documents, now and before, [its documents]."""
    own = places_of(samples.units, subject)

    def of(quantity: str, whose: str) -> FloatArray | None:
        found = samples.get(quantity, subject, whose)
        return None if found is None else found[own]

    return Series(
        samples.need(SCORE, subject, role)[own],
        samples.need(SCORE, subject, BASE)[own],
        of(LIKELIHOOD, role),
        of(LIKELIHOOD, BASE),
        chance=float(samples.need(CHANCE, subject, BASE)[own].mean()),
    )


MEASURE = Measure(
    key="lm_eval.drop",
    about="each lm-eval metric, base minus tuned, on the same documents",
    unit=UNIT,
    sampled=Sampled.DOCUMENTS,
    subjects=Subjects.TASKS,
    estimator=Estimator.SCORES,
    read=read,
    compare=compare,
    series=series,
    loss=lost,
)
