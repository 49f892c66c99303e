"""The measure `accuracy.drop`: accuracy of base minus accuracy of tuned, on the same pairs, where
accuracy is what the readout says: the answer above the distractor, or first of all tokens."""

from __future__ import annotations

from forgetguard.measures.measure import PROPORTION, Estimator, Measure, Sampled, Series
from forgetguard.measures.readout_drop import loss
from forgetguard.measures.samples import BASE, CORRECT, READOUT, WHOLE, Samples


def series(samples: Samples, _: str, role: str) -> Series:
    """Right now, and right before; with the readouts behind them."""
    return Series(
        samples.need(CORRECT, WHOLE, role),
        samples.need(CORRECT, WHOLE, BASE),
        samples.need(READOUT, WHOLE, role),
        samples.need(READOUT, WHOLE, BASE),
    )


MEASURE = Measure(
    key="accuracy.drop",
    about="accuracy of base minus accuracy of tuned",
    unit=PROPORTION,
    sampled=Sampled.PAIRS,
    estimator=Estimator.PROPORTION,
    series=series,
    loss=loss,
    needs_capability=True,
    has_chance=True,
)
