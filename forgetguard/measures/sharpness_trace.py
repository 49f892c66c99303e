"""The measure `sharpness.trace`: the trace of the loss's Hessian in the tuned model over that in
the base, less 1; as `sharpness.max`, of all directions together."""

from __future__ import annotations

from forgetguard.measures.measure import Opened
from forgetguard.measures.samples import FloatArray
from forgetguard.measures.sharpness_max import growth


def read(model: Opened) -> FloatArray:
    """An unbiased estimate of the trace on each prompt, [prompt] (measures/curvature.py)."""
    from forgetguard.measures.curvature import trace_estimates

    return trace_estimates(model.anatomy, model.passages, vocabulary=model.vocabulary)


MEASURE = growth(
    "sharpness.trace",
    "trace of the loss's Hessian (Hutchinson's estimate), tuned over base, less 1",
    "a second derivative of each model a prompt",
    read,
)
