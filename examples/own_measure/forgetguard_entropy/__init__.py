"""The measure `entropy.rise`: by how much the tuned model's next-token entropy exceeds the base's.

All that forgetguard needs of a measure: what it is called, in which unit, over what it is sampled,
how to read one model, and how to compare the base with what was read. torch is imported where it is
used: collecting gates must not load it.
"""

from __future__ import annotations

from collections.abc import Mapping

from forgetguard.measures.measure import NATS, Measure, Opened, Sampled
from forgetguard.measures.samples import WHOLE, FloatArray


def read(model: Opened) -> FloatArray:
    """The entropy of the token that follows each prompt, in nats, float64 [prompt]."""
    import torch

    from forgetguard.measures.divergence import predict

    kept = predict(model.anatomy, model.passages)
    log_p = kept.logits[..., : model.vocabulary].double().log_softmax(-1)
    entropy = torch.special.entr(log_p.exp()).sum(-1)
    sizes = [len(passage.positions) for passage in model.passages]
    return torch.stack([part.mean() for part in entropy.split(sizes)]).numpy()


def compare(base: Opened, tuned: FloatArray) -> Mapping[str, FloatArray]:
    """Tuned minus base, [prompt]."""
    return {WHOLE: tuned - base.once(read)}


MEASURE = Measure(
    key="entropy.rise",
    about="next-token entropy of tuned minus that of base, mean over prompts",
    unit=NATS,
    sampled=Sampled.PROMPTS,
    read=read,
    compare=compare,
)
