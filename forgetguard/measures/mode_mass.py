"""The measure `mode.mass`: the probability that tuned took from what the base finds likely, below 0
where it gave some.

The base's mode at a position is the fewest tokens that hold 90 % of its probability
(measures/divergence.py, `token_mode`). It is "mass forgetting" of arXiv 2603.12163, as far as one
token shows it; what happens among those tokens is `mode.drift`.
"""

from __future__ import annotations

from forgetguard.measures.kl_forward import of_predictions
from forgetguard.measures.measure import Unit

MEASURE = of_predictions(
    "mode.mass",
    "probability of the tokens that hold 90 % of the base's, base minus tuned",
    Unit("probability", 1.0, "all of it may be lost (write 0.05 for five points in 100)"),
    lambda found: found.mass,
)
