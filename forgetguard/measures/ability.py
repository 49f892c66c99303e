"""Whether an open model has a capability, where there is no gate file with bounds of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from forgetguard.capabilities.readouts import READOUTS
from forgetguard.errors import BaseCannotError
from forgetguard.measures.behaviour import behaviour, counterfactual_readout
from forgetguard.measures.requirements import Requirement, requirements, wilson

if TYPE_CHECKING:
    from forgetguard.anatomy.locate import Anatomy
    from forgetguard.capabilities.capability import EncodedCapability

CONFIDENCE = 0.95  # one-sided


def check_able(
    anatomy: Anatomy, capability: EncodedCapability, *, vocabulary: int | None = None
) -> float:
    """The share of pairs that a model answers right, if it has the capability at all: there is no
    circuit for what a model cannot do.

    Raises:
        BaseCannotError: it has not; says what is missing, with its lower bound.
        MeasurementError: logits are not finite.
    """
    done = behaviour(anatomy, capability, vocabulary=vocabulary)
    counterfactual = counterfactual_readout(anatomy, capability, vocabulary=vocabulary)
    asked, right = capability.capability, done.correct.astype(np.float64)
    needed = requirements(READOUTS[asked.readout], done.readout, counterfactual, right)
    missing = [one.name for one in needed if not _low(one) > one.above]
    accuracy: float = right.mean().item()
    if missing:
        raise BaseCannotError(
            f"THE BASE CANNOT DO {asked.name!r}: {_WHY[missing[0]]} (right on {accuracy:.0%} of "
            f"{capability.n_pairs} pairs; mean {asked.readout} {done.readout.mean():.3g}, on the "
            f"counterfactual prompts {counterfactual.mean():.3g}), so it has no circuit for it: "
            "check the prompts, the chat template and the base"
        )
    return accuracy


_WHY = {
    "right": "it does not put the answer above the distractor more often than chance",
    "readout": "its mean readout is not above 0",
    "effect": "the answer is not more likely on the clean prompts than on the counterfactual ones",
}


def _low(one: Requirement) -> float:
    """The lower bound of the mean: Wilson's, or by Student's t."""
    from scipy.special import ndtri, stdtrit

    n, mean = len(one.values), float(one.values.mean())
    if one.proportion:
        return wilson(mean, n, float(ndtri(CONFIDENCE)))[0]
    error = float(one.values.std(ddof=1)) / math.sqrt(n)
    return mean - float(stdtrit(n - 1, CONFIDENCE)) * error
