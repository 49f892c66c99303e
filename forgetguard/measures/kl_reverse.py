"""The measure `kl.reverse`: KL(tuned || base) of what both predict, prompt by prompt.

Large where the tuned model says what the base would not (measures/divergence.py).
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
    return {WHOLE: found.means(found.reverse)}


MEASURE = Measure(
    key="kl.reverse",
    about="KL(tuned || base) of the next token, mean over prompts",
    unit=NATS,
    sampled=Sampled.PROMPTS,
    watch=watch,
    compare=compare,
)
