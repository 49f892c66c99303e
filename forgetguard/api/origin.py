"""Where the tuned model's loss of a capability came from, from Python."""

from __future__ import annotations

from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.encoding import check_same_ids
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.gate.session import shared_vocabulary
from forgetguard.measures import origin as measures

Origin = measures.Origin


def origin(pair: ModelPair, capability: Capability, *, passes: int = 40, seed: int = 0) -> Origin:
    """Share the loss of a capability among the parts of the checkpoint (docs/origin.md).

    Raises:
        ForgetguardError: it cannot be measured; the message says why.
    """
    encoded = capability.encoded(pair.base.tokenizer)
    theirs = capability.encoded(pair.tuned.tokenizer)
    check_same_ids(encoded.encoded, theirs.encoded.pairs, "tuned")
    vocabulary = shared_vocabulary(pair)
    return measures.origin(pair, encoded, vocabulary=vocabulary, passes=passes, seed=seed)
