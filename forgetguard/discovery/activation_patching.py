"""Activation patching: every head's importance, exactly, by patching each from the counterfactual.

Noising, in the terms of the field: the clean run with one head's contribution from the
counterfactual prompt. Cost: one wavefront over all heads, then one over the growing sets of the
curve; both grow with heads x pairs x layers after the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from forgetguard.anatomy.heads import Head
from forgetguard.anatomy.locate import Anatomy
from forgetguard.capabilities.batches import Batch
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import READOUTS, Readout, score
from forgetguard.discovery.scores import ScoredHeads
from forgetguard.errors import CapabilityError
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import clean_pass
from forgetguard.patching.sources import Run, Source
from forgetguard.patching.wavefront import wavefront

Progress = Callable[[str, int, int], None]


def activation_patching(
    anatomy: Anatomy, capability: EncodedCapability, *, progress: Progress | None = None
) -> ScoredHeads:
    """Score every head of a model by what patching it from the counterfactual costs.

    Raises:
        CapabilityError: patching every head at once loses nothing: the readout does not depend on
            what the counterfactual changes.
    """
    heads = anatomy.heads
    drops = _mean_drops(anatomy, capability, [(head,) for head in heads], "scoring heads", progress)
    ranked = sorted(zip(heads, drops, strict=True), key=lambda item: (-abs(item[1]), item[0]))
    order = [head for head, _ in ranked]
    sets = [tuple(order[:size]) for size in range(1, len(order) + 1)]
    losses = _mean_drops(anatomy, capability, sets, "drawing the curve", progress)
    if not losses[-1] > 0:
        raise CapabilityError(
            f"capability {capability.capability.name}: patching every head from the counterfactual "
            f"changes the readout by {-losses[-1]:.3g}, so no heads of this model carry it"
        )
    return ScoredHeads(
        {head: float(drop) for head, drop in ranked},
        float(losses[-1]),
        tuple(float(loss / losses[-1]) for loss in losses),
        "activation_patching",
    )


def _mean_drops(
    anatomy: Anatomy,
    capability: EncodedCapability,
    sets: Sequence[tuple[Head, ...]],
    what: str,
    progress: Progress | None,
) -> npt.NDArray[np.float64]:
    """Mean loss of the readout over pairs, for each set of heads patched together."""
    readout = READOUTS[capability.capability.readout]
    total = np.zeros(len(sets))
    done = 0
    for batch in capability.batches:
        source = Source(
            capture(anatomy, batch.counterfactual, batch.positions, anatomy.heads).z,
            start=batch.start,
        )

        reduce = partial(_score, readout, batch)
        with torch.no_grad():
            clean = clean_pass(anatomy, batch.clean, batch.positions, anatomy.heads)
            before = reduce(clean.logits.float(), torch.arange(len(batch.pairs)))
            after = wavefront(clean, [Run(chosen, source) for chosen in sets], reduce)
        total += (before - after).sum(dim=1).numpy()
        done += len(batch.pairs)
        if progress is not None:
            progress(what, done, capability.n_pairs)
    return total / capability.n_pairs


def _score(readout: Readout, batch: Batch, logits: Tensor, rows: Tensor) -> Tensor:
    return score(readout, logits, batch, rows).double().cpu()
