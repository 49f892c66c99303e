"""The measure `accuracy.drop`: accuracy of base minus accuracy of tuned, on the same pairs, where
accuracy is what the readout says: the answer above the distractor, or first of all tokens."""

from __future__ import annotations

from forgetguard.measures.measure import PROPORTION, Estimator, Measure, Sampled, Select, Series
from forgetguard.measures.readout_drop import loss
from forgetguard.measures.samples import BASE, CORRECT, READOUT, WHOLE, Samples


def series_of(quantity: str) -> Select:
    """Where `quantity`, a yes or a no on each pair, holds now and held before; with the readouts
    behind them."""

    def series(samples: Samples, _: str, role: str) -> Series:
        return Series(
            samples.need(quantity, WHOLE, role),
            samples.need(quantity, WHOLE, BASE),
            samples.need(READOUT, WHOLE, role),
            samples.need(READOUT, WHOLE, BASE),
        )

    return series


MEASURE = Measure(
    key="accuracy.drop",
    about="accuracy of base minus accuracy of tuned",
    unit=PROPORTION,
    sampled=Sampled.PAIRS,
    estimator=Estimator.PROPORTION,
    series=series_of(CORRECT),
    loss=loss,
    needs_capability=True,
    has_chance=True,
)
