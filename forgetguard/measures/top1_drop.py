"""The measure `top1.drop`: how much rarer the answer is the most likely of all tokens."""

from __future__ import annotations

from forgetguard.measures.measure import PROPORTION, Estimator, Measure, Sampled, Series
from forgetguard.measures.readout_drop import loss
from forgetguard.measures.samples import BASE, READOUT, TOP1, WHOLE, Samples


def series(samples: Samples, _: str, role: str) -> Series:
    """First now, and first before; with the readouts behind them."""
    return Series(
        samples.need(TOP1, WHOLE, role),
        samples.need(TOP1, WHOLE, BASE),
        samples.need(READOUT, WHOLE, role),
        samples.need(READOUT, WHOLE, BASE),
    )


MEASURE = Measure(
    key="top1.drop",
    about="share of pairs with the answer first of all tokens, base minus tuned",
    unit=PROPORTION,
    sampled=Sampled.PAIRS,
    estimator=Estimator.PROPORTION,
    series=series,
    loss=loss,
    needs_capability=True,
)
