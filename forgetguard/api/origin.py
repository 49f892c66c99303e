"""Where the tuned model's loss of a capability came from, from Python."""

from __future__ import annotations

from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.encoding import check_same_ids
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.gate.session import shared_vocabulary
from forgetguard.measures import origin as measures

Origin = measures.Origin


def origin(
    pair: ModelPair,
    capability: Capability,
    *,
    passes: int = 40,
    seed: int = 0,
    new_task: Capability | None = None,
) -> Origin:
    """Share the loss of a capability among the parts of the checkpoint (docs/origin.md); with
    `new_task`, what giving each part back costs there too.

    Raises:
        ForgetguardError: it cannot be measured; the message says why.
    """
    both = []
    for one in (capability, *([] if new_task is None else [new_task])):
        encoded = one.encoded(pair.base.tokenizer)
        check_same_ids(encoded.encoded, one.encoded(pair.tuned.tokenizer).encoded.pairs, "tuned")
        both.append(encoded)
    return measures.origin(
        pair,
        both[0],
        vocabulary=shared_vocabulary(pair),
        passes=passes,
        seed=seed,
        new_task=None if new_task is None else both[1],
    )
