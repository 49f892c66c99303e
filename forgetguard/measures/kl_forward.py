"""The measure `kl.forward`: KL(base || tuned) of what both predict, prompt by prompt.

Large where the tuned model has dropped what the base would say; on prompts of the new task its mean
is what RL's Razor (arXiv 2509.04259) relates forgetting to (measures/divergence.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forgetguard.measures.measure import NATS, Measure, Opened, Sampled
from forgetguard.measures.samples import WHOLE, FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.divergence import Divergence, Predictions
    from forgetguard.measures.prompt_pass import Reader


def predictions(model: Opened) -> Reader[Predictions]:
    """What a model predicts at every compared position, to be held against the base."""
    from forgetguard.measures.divergence import predicting

    return predicting(model.passages)


def divergence(base: Opened, kept: Predictions) -> Reader[Divergence]:
    """Both directions of KL between the base and another model, and what became of its mode."""
    from forgetguard.measures.divergence import diverging

    return diverging(kept, base.vocabulary)


def watch(model: Opened, kept: Predictions | None) -> Reader[Any]:
    """One of the two."""
    return model.once(predictions) if kept is None else model.once(divergence, kept)


def read(model: Opened) -> Predictions:
    """See `predictions`."""
    return model.seen(predictions)


def compare(base: Opened, kept: Predictions) -> Mapping[str, FloatArray]:
    """Nats a token, a prompt's mean over its positions: [prompt]."""
    found = base.seen(divergence, kept)
    return {WHOLE: found.means(found.forward)}


MEASURE = Measure(
    key="kl.forward",
    about="KL(base || tuned) of the next token, mean over prompts",
    unit=NATS,
    sampled=Sampled.PROMPTS,
    watch=watch,
    read=read,
    compare=compare,
)
