"""The measure `sharpness.trace`: the trace of the loss's Hessian in the tuned model over that in
the base, less 1; as `sharpness.max`, of all directions together."""

from __future__ import annotations

from collections.abc import Mapping

from forgetguard.measures.measure import Estimator, Measure, Opened, Sampled, Series
from forgetguard.measures.samples import BASE, FloatArray, Samples
from forgetguard.measures.sharpness_max import GROWTH, beyond

KEY = "sharpness.trace"


def read(model: Opened) -> FloatArray:
    """An unbiased estimate of the trace on each prompt, [prompt] (measures/curvature.py)."""
    from forgetguard.measures.curvature import trace_estimates

    return trace_estimates(model.anatomy, model.passages, vocabulary=model.vocabulary)


def compare(base: Opened, kept: FloatArray) -> Mapping[str, FloatArray]:
    """What the other model has more of it than the base, [prompt]."""
    return beyond(base, KEY, kept, base.once(read))


def series(samples: Samples, subject: str, role: str) -> Series:
    """That, over what the base has."""
    return Series(samples.need(KEY, subject, role), samples.need(KEY, subject, BASE))


MEASURE = Measure(
    key=KEY,
    about="trace of the loss's Hessian (Hutchinson's estimate), tuned over base, less 1",
    unit=GROWTH,
    sampled=Sampled.PROMPTS,
    estimator=Estimator.RATIO,
    read=read,
    compare=compare,
    series=series,
    by_unit=False,
    needs_completions=True,
    takes="a second derivative of each model a prompt",
)
