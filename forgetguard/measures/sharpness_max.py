"""The measure `sharpness.max`: the largest eigenvalue of the loss's Hessian in the tuned model over
that in the base, less 1.

After arXiv 2601.18699 (flatness). The loss is that of the prompts' completions, each model at its
own weights. It is no loss of the capability: where it is sharp, a smaller further step loses as
much (measures/curvature.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from forgetguard.measures.measure import Estimator, Measure, Opened, Sampled, Series, Unit
from forgetguard.measures.samples import BASE, WHOLE, FloatArray, Key, Samples


def growth(key: str, about: str, takes: str, read: Callable[[Opened], FloatArray]) -> Measure:
    """The measure of how much more than the base another model has of what `read` finds on each
    prompt, [prompt]: that difference over what the base has, which is left beside it."""

    def compare(base: Opened, kept: FloatArray) -> Mapping[str, FloatArray]:
        own = base.beside[Key(key, WHOLE, BASE)] = base.once(read)
        return {WHOLE: kept - own}

    def series(samples: Samples, subject: str, role: str) -> Series:
        return Series(samples.need(key, subject, role), samples.need(key, subject, BASE))

    return Measure(
        key=key,
        about=about,
        unit=Unit("growth over the base"),
        sampled=Sampled.PROMPTS,
        estimator=Estimator.RATIO,
        read=read,
        compare=compare,
        series=series,
        by_unit=False,
        needs_completions=True,
        takes=takes,
    )


def read(model: Opened) -> FloatArray:
    """Each prompt's curvature along the sharpest direction, [prompt]."""
    from forgetguard.measures.curvature import largest_curvature

    return largest_curvature(model.anatomy, model.passages, vocabulary=model.vocabulary)


MEASURE = growth(
    "sharpness.max",
    "largest eigenvalue of the loss's Hessian, tuned over base, less 1",
    "up to 48 second derivatives of each model on all prompts",
    read,
)
