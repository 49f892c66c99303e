"""The measure `margin.drop`: how much of its lead over every other token the answer lost.

The margin is the answer's logit minus the best other token's, in standard deviations of the logits
over the vocabulary: no scale of a model's logits moves it, and whichever token overtakes the answer
counts, not the distractor alone. It is a difference and not a share, so it holds where the base's
mean margin is near 0 (a base that puts a filler word first), and a share of it would mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from forgetguard.measures.measure import Estimator, Measure, Opened, Sampled, Unit
from forgetguard.measures.samples import WHOLE, FloatArray


def read(model: Opened) -> FloatArray:
    """The margin on every clean prompt, float64 [pair]; of an answer of several tokens the mean
    over them, of several valid answers that of the best.

    Raises:
        MeasurementError: logits are not finite.
    """
    import numpy as np
    import torch

    from forgetguard.capabilities.readouts import lead
    from forgetguard.patching.forward import check_finite, forward

    assert model.pairs is not None
    found = np.full(model.pairs.n_pairs, np.nan)
    with torch.no_grad():
        for batch in model.pairs.batches:
            logits = forward(model.anatomy, batch.clean, batch.positions)[..., : model.vocabulary]
            check_finite(logits, "a clean prompt")
            valid = batch.answer.unsqueeze(2) if batch.answers is None else batch.answers[:, None]
            values = lead(logits.float(), valid.to(logits.device)).mean(dim=1)
            found[list(batch.pairs)] = values.double().cpu().numpy()
    return found


def compare(base: Opened, kept: FloatArray) -> Mapping[str, FloatArray]:
    """The base's margin minus the other model's, [pair]."""
    return {WHOLE: base.once(read) - kept}


MEASURE = Measure(
    key="margin.drop",
    about="mean lead of the answer over the best other token, base minus tuned",
    unit=Unit("SD of the logits"),
    sampled=Sampled.PAIRS,
    estimator=Estimator.MEAN,
    read=read,
    compare=compare,
    needs_capability=True,
)
