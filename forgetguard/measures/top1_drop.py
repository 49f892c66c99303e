"""The measure `top1.drop`: how much rarer the answer is the most likely of all tokens."""

from __future__ import annotations

from dataclasses import replace

from forgetguard.measures import accuracy_drop
from forgetguard.measures.samples import TOP1

MEASURE = replace(
    accuracy_drop.MEASURE,
    key="top1.drop",
    about="share of pairs with the answer first of all tokens, base minus tuned",
    series=accuracy_drop.series_of(TOP1),
    has_chance=False,
)
