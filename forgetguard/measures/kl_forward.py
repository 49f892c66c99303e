"""The measure `kl.forward`: KL(base || tuned) of what both predict, prompt by prompt.

Large where the tuned model has dropped what the base would say; on prompts of the new task its mean
is what RL's Razor (arXiv 2509.04259) relates forgetting to (measures/divergence.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from forgetguard.measures.measure import NATS, Measure, Opened, Sampled, Unit
from forgetguard.measures.samples import WHOLE, FloatArray

if TYPE_CHECKING:
    from forgetguard.measures.divergence import Divergence, Predictions
    from forgetguard.measures.prompt_pass import Reader


def watch(model: Opened, kept: Predictions | None) -> Reader[Any]:
    """What a model predicts at every compared position; of the base, how far it lies from what was
    kept of another: both directions of KL, and what became of its mode."""
    from forgetguard.measures.divergence import diverging, predicting

    return predicting(model.passages) if kept is None else diverging(kept, model.vocabulary)


def of_predictions(
    key: str, about: str, unit: Unit, part: Callable[[Divergence], FloatArray]
) -> Measure:
    """The measure of one `part` of how far two models' predictions lie apart, token by token."""

    def compare(base: Opened, kept: Predictions) -> Mapping[str, FloatArray]:
        """A prompt's mean over its positions: [prompt]."""
        found = base.seen(watch, kept)
        return {WHOLE: found.means(part(found))}

    return Measure(
        key=key, about=about, unit=unit, sampled=Sampled.PROMPTS, watch=watch, compare=compare
    )


MEASURE = of_predictions(
    "kl.forward",
    "KL(base || tuned) of the next token, mean over prompts",
    NATS,
    lambda found: found.forward,
)
