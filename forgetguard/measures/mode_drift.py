"""The measure `mode.drift`: how far tuned's preferences among the base's likely tokens moved.

KL of base against tuned, both given that the next token is one of the fewest that hold 90 % of the
base's probability: the drift of the old mode in arXiv 2603.12163, whatever mass it has lost
(`mode.mass`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.measures.kl_forward import watch
from forgetguard.measures.measure import NATS, Measure, Opened, Sampled
from forgetguard.measures.samples import WHOLE, FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.divergence import Predictions


def compare(base: Opened, kept: Predictions) -> Mapping[str, FloatArray]:
    """Nats a token, a prompt's mean over its positions: [prompt]."""
    found = base.seen(watch, kept)
    return {WHOLE: found.means(found.drift)}


MEASURE = Measure(
    key="mode.drift",
    about="KL(base || tuned) among the tokens that hold 90 % of the base's probability",
    unit=NATS,
    sampled=Sampled.PROMPTS,
    watch=watch,
    compare=compare,
)
