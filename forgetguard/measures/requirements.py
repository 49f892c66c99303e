"""Whether a model has a capability: the one rule for it, by the capability's own readout.

A model that puts a filler word before every answer, and the answer far above the distractor, has
the capability; so the most likely of all tokens decides nothing here. What must hold, of the means
over the pairs:

- `right` (of a signed readout): the share of pairs on which it reads above 0 is above chance;
- `readout` (of a signed readout): F(clean) is above 0;
- `effect`: F(clean) is above F(counterfactual), for the same answer: the model reads the prompt.

Each is a mean that must be above 0 by its lower bound. The gate takes its own bounds, with
templates (gate/rule.py); where there is no gate file, measures/ability.py takes Student's.
"""

from __future__ import annotations

from forgetguard.capabilities.readouts import Readout
from forgetguard.measures.samples import FloatArray


def requirements(
    readout: Readout, clean: FloatArray, counterfactual: FloatArray, right: FloatArray
) -> dict[str, FloatArray]:
    """By name, the values [pair] whose mean must be above 0: F on the clean prompts and on the
    counterfactual ones, and 1 where a pair is answered right."""
    signed = {"right": right - readout.chance, "readout": clean} if readout.signed else {}
    return {**signed, "effect": clean - counterfactual}
