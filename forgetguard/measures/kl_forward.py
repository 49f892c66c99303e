"""The measure `kl.forward`: KL(base || tuned) of what both predict, prompt by prompt.

Large where the tuned model has dropped what the base would say; on prompts of the new task its mean
is what RL's Razor (arXiv 2509.04259) relates forgetting to (measures/divergence.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from forgetguard.measures.measure import NATS, Measure, Opened, Sampled
from forgetguard.measures.samples import WHOLE, FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.divergence import Divergence, Predictions


def predictions(model: Opened) -> Predictions:
    """What a model predicts at every compared position, to be held against the base."""
    from forgetguard.measures.divergence import predict

    return predict(model.anatomy, model.passages)


def divergence(base: Opened, kept: Predictions) -> Divergence:
    """Both directions of KL between the base and another model."""
    from forgetguard.measures.divergence import divergence

    return divergence(base.anatomy, kept, vocabulary=base.vocabulary)


def read(model: Opened) -> Predictions:
    """See `predictions`."""
    return model.once(predictions)


def compare(base: Opened, kept: Predictions) -> Mapping[str, FloatArray]:
    """Nats a token, a prompt's mean over its positions: [prompt]."""
    found = base.once(divergence, kept)
    return {WHOLE: found.means(found.forward)}


MEASURE = Measure(
    key="kl.forward",
    about="KL(base || tuned) of the next token, mean over prompts",
    unit=NATS,
    sampled=Sampled.PROMPTS,
    read=read,
    compare=compare,
)
