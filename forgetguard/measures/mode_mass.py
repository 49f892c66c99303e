"""The measure `mode.mass`: the probability that tuned took from what the base finds likely.

The base's mode at a position is the fewest tokens that hold 90 % of its probability
(measures/divergence.py, `token_mode`). It is "mass forgetting" of arXiv 2603.12163, as far as one
token shows it; what happens among those tokens is `mode.drift`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.measures.kl_forward import watch
from forgetguard.measures.measure import Measure, Opened, Sampled, Unit
from forgetguard.measures.samples import WHOLE, FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.divergence import Predictions


def compare(base: Opened, kept: Predictions) -> Mapping[str, FloatArray]:
    """Share of the probability, a prompt's mean over its positions, below 0 where tuned gained:
    [prompt]."""
    found = base.seen(watch, kept)
    return {WHOLE: found.means(found.mass)}


MEASURE = Measure(
    key="mode.mass",
    about="probability of the tokens that hold 90 % of the base's, base minus tuned",
    unit=Unit("probability", 1.0, "all of it may be lost (write 0.05 for five points in 100)"),
    sampled=Sampled.PROMPTS,
    watch=watch,
    compare=compare,
)
