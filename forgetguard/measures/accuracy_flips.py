"""The measure `accuracy.flips`: pairs that the base gets right and tuned gets wrong, whatever went
the other way; accuracy as of `accuracy.drop`, chance taken off as in `lm_eval.flips` where the
readout chooses between an answer and a distractor (arXiv 2510.17776)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forgetguard.measures import accuracy_drop
from forgetguard.measures.lm_eval_flips import with_flips
from forgetguard.measures.measure import Estimator, Opened, Series
from forgetguard.measures.samples import CORRECT, WHOLE, FloatArray, Samples

KEY = "accuracy.flips"


def read(model: Opened) -> FloatArray:
    """With which probability guessing is right, [pair]: by the readout, for the samples keep it."""
    import numpy as np

    from forgetguard.capabilities.readouts import READOUTS

    assert model.pairs is not None
    return np.full(model.pairs.n_pairs, READOUTS[model.pairs.capability.readout].chance)


def compare(base: Opened, kept: FloatArray) -> Mapping[str, FloatArray]:
    """That, [pair]."""
    return {WHOLE: kept}


def series(samples: Samples, subject: str, role: str) -> Series:
    """Whether each pair is right, with its flips less those of guessing anew."""
    return with_flips(
        accuracy_drop.series_of(CORRECT)(samples, subject, role), samples.need(KEY, WHOLE, role)
    )


MEASURE = replace(
    accuracy_drop.MEASURE,
    key=KEY,
    about="pairs right in base and wrong in tuned, less what guessing anew would flip",
    estimator=Estimator.SCORES,
    read=read,
    compare=compare,
    series=series,
    has_chance=False,
)
