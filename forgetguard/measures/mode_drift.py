"""The measure `mode.drift`: how far tuned's preferences among the base's likely tokens moved.

KL of base against tuned, both given that the next token is one of the fewest that hold 90 % of the
base's probability: the drift of the old mode in arXiv 2603.12163, whatever mass it has lost
(`mode.mass`).
"""

from __future__ import annotations

from forgetguard.measures.kl_forward import of_predictions
from forgetguard.measures.measure import NATS

MEASURE = of_predictions(
    "mode.drift",
    "KL(base || tuned) among the tokens that hold 90 % of the base's probability",
    NATS,
    lambda found: found.drift,
)
