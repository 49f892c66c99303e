"""The measure `kl.reverse`: KL(tuned || base) of what both predict, prompt by prompt.

Large where the tuned model says what the base would not (measures/divergence.py).
"""

from __future__ import annotations

from forgetguard.measures.kl_forward import of_predictions
from forgetguard.measures.measure import NATS

MEASURE = of_predictions(
    "kl.reverse",
    "KL(tuned || base) of the next token, mean over prompts",
    NATS,
    lambda found: found.reverse,
)
