"""The measure `lm_eval.calibration`: how much worse tuned knows what it knows, per multiple-choice
task.

Documents fall into ten bins of equal width by confidence, the share of the likeliest option among
all options' likelihoods. The gap of a bin is mean confidence less accuracy. The expected
calibration error (Guo et al. 2017, arXiv 1706.04599) is the mean of |gap| over documents; what is
held here is that of gap squared, the reliability part of the Brier score, without its bias (Ferro
and Fricker 2012; Kumar et al. 2019, arXiv 1909.10155). For |gap| reads too much wherever it is
small, and most so in a well calibrated base: at 200 documents 27 to 40 % of upper bounds on its
rise were too low, instead of 5 %; of the squared one's, at most 7 %
(examples/studies/calibration_error.py). The root of the squared error is never below the expected
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forgetguard.errors import MeasurementError
from forgetguard.measures import lm_eval_drop
from forgetguard.measures.documents import CONFIDENCE, LIKELIHOOD, SCORE, Scores, places_of
from forgetguard.measures.measure import Opened, Series, Unit
from forgetguard.measures.samples import BASE, FloatArray, Samples

BINS = 10


def contributions(confidence: FloatArray, right: FloatArray) -> FloatArray:
    """Of each document to the squared calibration error, float64 [document]; `confidence` in 0 to
    1, `right` 0 or 1.

    With d = confidence - right, gap^2 of a bin is estimated by the mean m of d_i times the mean of
    the others' d: unbiased, so it can be below 0. A document's part is 2 d_i (others' mean) - m:
    the same mean, and the variance that m has by its first-order (Hajek) expansion. A document that
    is alone in its bin tells nothing, and has 0.
    """
    import numpy as np

    place = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)

    def of_bins(values: FloatArray) -> FloatArray:
        sums: FloatArray = np.bincount(place, weights=values, minlength=BINS).astype(np.float64)
        return sums[place]

    off = confidence - right
    count = of_bins(np.ones_like(off))
    products = off * (of_bins(off) - off) / np.maximum(count - 1, 1)
    found: FloatArray = 2 * products - of_bins(products) / count
    return found


def _right(subject: str) -> str:
    return f"{subject.partition(' ')[0]} acc"


def compare(base: Opened, kept: Scores) -> Mapping[str, FloatArray]:
    """The other model's contributions minus the base's, [document] by `task calibration`, 0 on
    documents of other tasks.

    Raises:
        MeasurementError: no task has options, or `acc` is not among its metrics.
    """
    import numpy as np

    from forgetguard.measures.harness import paired

    both = paired(base, kept)
    assert base.documents is not None  # or there are no scores
    found = {}
    for subject in both[0].of[CONFIDENCE]:
        own = places_of(base.documents.units, subject)
        before, now = (
            contributions(one.of[CONFIDENCE][subject][own], one.of[SCORE][_right(subject)][own])
            for one in both
        )
        found[subject] = np.zeros(len(own))
        found[subject][own] = now - before
    if not found:
        raise MeasurementError(
            "lm_eval.calibration needs a task of multiple choice with the metric acc: give one, "
            "and leave acc in metrics:"
        )
    return found


def series(samples: Samples, subject: str, role: str) -> Series:
    """One less each document's contribution, now and before, [its documents]."""
    own, right = places_of(samples.units, subject), _right(subject)

    def of(whose: str) -> tuple[FloatArray, FloatArray]:
        confidence = samples.need(CONFIDENCE, subject, whose)[own]
        error = contributions(confidence, samples.need(SCORE, right, whose)[own])
        return 1 - error, samples.need(LIKELIHOOD, right, whose)[own]

    (now, graded), (before, graded_before) = of(role), of(BASE)
    return Series(now, before, graded, graded_before)


MEASURE = replace(
    lm_eval_drop.MEASURE,
    key="lm_eval.calibration",
    about="squared calibration error of each multiple-choice task, tuned minus base",
    unit=Unit("probability squared", 1.0, "it cannot rise by more (write 0.01 for 10 points off)"),
    compare=compare,
    series=series,
    shows_scores=False,
)
