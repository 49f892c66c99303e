"""The measure `margin.drop`: how much of its lead over every other token the answer lost.

The margin is the answer's logit minus the best other token's, in standard deviations of the logits
over the vocabulary: no scale of a model's logits moves it, and whichever token overtakes the answer
counts, not the distractor alone. It is a difference and not a share, so it holds where the base's
mean margin is near 0 (a base that puts a filler word first), and a share of it would mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from forgetguard.measures.measure import Estimator, Measure, Opened, Sampled, Unit
from forgetguard.measures.samples import WHOLE, FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from forgetguard.measures.prompt_pass import Reader


def margins(model: Opened) -> Reader[FloatArray]:
    """The margin on every clean prompt, float64 [pair]; of an answer of several tokens the mean
    over them, of several valid answers that of the best."""
    import numpy as np

    from forgetguard.capabilities.readouts import lead
    from forgetguard.measures.prompt_pass import Reader
    from forgetguard.patching.forward import check_finite

    assert model.pairs is not None
    found = np.full(model.pairs.n_pairs, np.nan)
    batches = {batch.pairs: batch for batch in model.pairs.batches}

    def take(rows: Sequence[int], logits: Tensor, _: object) -> None:
        logits, batch = logits[..., : model.vocabulary], batches[tuple(rows)]
        check_finite(logits, "a prompt")
        valid = batch.answer.unsqueeze(2) if batch.answers is None else batch.answers[:, None]
        values = lead(logits.float(), valid.to(logits.device)).mean(dim=1)
        found[list(rows)] = values.double().cpu().numpy()

    return Reader(take, lambda: found, model.pairs.n_pairs)


def watch(model: Opened, _: object) -> Reader[FloatArray]:
    """See `margins`."""
    return model.once(margins)


def compare(base: Opened, kept: FloatArray) -> Mapping[str, FloatArray]:
    """The base's margin minus the other model's, [pair]."""
    return {WHOLE: base.seen(margins) - kept}


MEASURE = Measure(
    key="margin.drop",
    about="mean lead of the answer over the best other token, base minus tuned",
    unit=Unit("SD of the logits"),
    sampled=Sampled.PAIRS,
    estimator=Estimator.MEAN,
    watch=watch,
    compare=compare,
    needs_capability=True,
)
