"""The measure `top1.drop`: how much rarer the answer is the most likely of all tokens."""

from __future__ import annotations

from forgetguard.measures.accuracy_drop import series_of
from forgetguard.measures.measure import PROPORTION, Estimator, Measure, Sampled
from forgetguard.measures.readout_drop import loss
from forgetguard.measures.samples import TOP1

MEASURE = Measure(
    key="top1.drop",
    about="share of pairs with the answer first of all tokens, base minus tuned",
    unit=PROPORTION,
    sampled=Sampled.PAIRS,
    estimator=Estimator.PROPORTION,
    series=series_of(TOP1),
    loss=loss,
    needs_capability=True,
)
