"""The measure `sharpness.max`: the largest eigenvalue of the loss's Hessian in the tuned model over
that in the base, less 1.

After arXiv 2601.18699 (flatness). The loss is that of the prompts' completions, each model at its
own weights. It is no loss of the capability: where it is sharp, a smaller further step loses as
much (measures/curvature.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from forgetguard.measures.measure import Estimator, Measure, Opened, Sampled, Series, Unit
from forgetguard.measures.samples import BASE, WHOLE, FloatArray, Key, Samples

KEY = "sharpness.max"
GROWTH = Unit("growth over the base")


def read(model: Opened) -> FloatArray:
    """Each prompt's curvature along the sharpest direction, [prompt]."""
    from forgetguard.measures.curvature import largest_curvature

    return largest_curvature(model.anatomy, model.passages, vocabulary=model.vocabulary)


def compare(base: Opened, kept: FloatArray) -> Mapping[str, FloatArray]:
    """What the other model has more of it than the base, [prompt]."""
    return beyond(base, KEY, kept, base.once(read))


def beyond(base: Opened, key: str, kept: FloatArray, own: FloatArray) -> dict[str, FloatArray]:
    """`kept` less the base's own curvature, which is left beside it."""
    base.beside[Key(key, WHOLE, BASE)] = own
    return {WHOLE: kept - own}


def series(samples: Samples, subject: str, role: str) -> Series:
    """That, over what the base has."""
    return Series(samples.need(KEY, subject, role), samples.need(KEY, subject, BASE))


MEASURE = Measure(
    key=KEY,
    about="largest eigenvalue of the loss's Hessian, tuned over base, less 1",
    unit=GROWTH,
    sampled=Sampled.PROMPTS,
    estimator=Estimator.RATIO,
    read=read,
    compare=compare,
    series=series,
    by_unit=False,
    needs_completions=True,
    takes="up to 48 second derivatives of each model on all prompts",
)
