"""The measure `readout.drop`: the share of the base's mean readout that is lost."""

from __future__ import annotations

from forgetguard.measures.measure import SHARE, Estimator, Measure, Sampled, Series
from forgetguard.measures.samples import BASE, READOUT, TUNED, WHOLE, FloatArray, Samples


def series(samples: Samples, _: str, role: str) -> Series:
    """F(base) - F(this model), over |F(base)| by way of the mean's sign."""
    import numpy as np

    base = samples.need(READOUT, WHOLE, BASE)
    return Series(base - samples.need(READOUT, WHOLE, role), np.sign(base.mean()) * base)


def loss(samples: Samples) -> FloatArray:
    """What tuned lost of the readout on each pair."""
    return samples.need(READOUT, WHOLE, BASE) - samples.need(READOUT, WHOLE, TUNED)


MEASURE = Measure(
    key="readout.drop",
    about="(mean F(base) - mean F(tuned)) / |mean F(base)|",
    unit=SHARE,
    sampled=Sampled.PAIRS,
    estimator=Estimator.RATIO,
    series=series,
    loss=loss,
    needs_capability=True,
    graded=True,
)
