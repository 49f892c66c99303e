"""Whether a model has a capability: the one rule for it, by the capability's own readout.

A model that puts a filler word before every answer, and the answer far above the distractor, has
the capability; so the most likely of all tokens decides nothing here. What must hold, of the means
over the pairs:

- `right` (of a signed readout): the share of pairs on which it reads above 0 is above chance;
- `readout` (of a signed readout): F(clean) is above 0;
- `effect`: F(clean) is above F(counterfactual), for the same answer: the model reads the prompt.

Each must hold by its lower bound: of a proportion Wilson's, of a mean an interval of t statistics.
The gate's bounds know of templates (gate/accuracy.py, gate/studentised.py); where there is no gate
file, measures/ability.py takes pairs for independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from forgetguard.capabilities.readouts import Readout
from forgetguard.measures.samples import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Requirement:
    """That the mean of `values`, [pair], is above `above`; `proportion`: they are 0s and 1s."""

    name: str
    values: FloatArray
    above: float = 0.0
    proportion: bool = False


def requirements(
    readout: Readout, clean: FloatArray, counterfactual: FloatArray, right: FloatArray
) -> tuple[Requirement, ...]:
    """What must hold: from F on the clean prompts and on the counterfactual ones, and 1 where a
    pair is answered right, [pair] each."""
    signed = (
        Requirement("right", right, readout.chance, proportion=True),
        Requirement("readout", clean),
    )
    return (*signed * readout.signed, Requirement("effect", clean - counterfactual))


def wilson(share: float, count: float, quantile: float) -> tuple[float, float]:
    """The interval of a proportion seen as `share` of `count` units, whose one-sided quantile is
    `quantile` (Wilson 1927, JASA 22:209). Near 1 a mean has hardly a spread to go by, and 64 of 64
    would read 1 with no width; here it reads 0.96 to 1 at 5 %."""
    middle = (share + quantile**2 / (2 * count)) / (1 + quantile**2 / count)
    spread = share * (1 - share) / count + quantile**2 / (4 * count**2)
    half = quantile * math.sqrt(spread) / (1 + quantile**2 / count)
    return middle - half, middle + half
