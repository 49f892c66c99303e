"""Whether an open model has a capability, where there is no gate file with bounds of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from forgetguard.capabilities.readouts import READOUTS
from forgetguard.errors import BaseCannotError
from forgetguard.measures.behaviour import empty_behaviour, read_batch, read_counterfactual
from forgetguard.measures.interventions import Passes
from forgetguard.measures.requirements import Requirement, requirements, wilson
from forgetguard.patching.prefix import capture_beside, clean_and_prefix
from forgetguard.patching.sources import Source

if TYPE_CHECKING:
    from forgetguard.anatomy.locate import Anatomy
    from forgetguard.capabilities.capability import EncodedCapability

CONFIDENCE = 0.95  # one-sided


def check_able(
    anatomy: Anatomy, capability: EncodedCapability, passes: Passes | None = None
) -> float:
    """The share of pairs that a model answers right, if it has the capability at all: there is no
    circuit for what a model cannot do. `passes`: is given the passes, to patch from.

    Raises:
        BaseCannotError: it has not; says what is missing, with its lower bound.
        MeasurementError: logits are not finite.
    """
    passes = Passes(()) if passes is None else passes
    done = empty_behaviour(capability.n_pairs)
    counterfactual = np.full(capability.n_pairs, np.nan)
    own = passes.slices(anatomy, passes.members)
    with torch.no_grad():
        for number, batch in enumerate(capability.batches):
            passed = clean_and_prefix(
                anatomy, batch.clean, batch.positions, passes.members, batch.start, own=own
            )
            other = capture_beside(passed, batch.counterfactual, batch.start, passes.members)
            read_batch(capability, batch, passed.logits, done)
            read_counterfactual(capability, batch, other.logits, counterfactual)
            source = Source(other.z, start=batch.start)
            passes.keep(number, passed, {"counterfactual": source})
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
