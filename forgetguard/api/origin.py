"""Where the tuned model's loss of a capability came from, from Python."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.encoding import check_same_ids
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.measures import origin as measures
from forgetguard.report.wording import part
from forgetguard.shown import Row, Shown


class Origin(measures.Origin, Shown):
    """As `forgetguard.measures.origin.Origin`, shown in a notebook."""

    __slots__ = ()

    def rows(self) -> list[Row]:
        shares = [(part(asdict(one.part)), one.share.readout) for one in self.parts + self.refined]
        return [("share of the loss", name, share, share, share) for name, share in shares]


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
        encoded = replace(one.encoded(pair.base.tokenizer), vocabulary=pair.vocabulary)
        check_same_ids(encoded.encoded, one.encoded(pair.tuned.tokenizer).encoded.pairs, "tuned")
        both.append(encoded)
    found = measures.origin(
        pair,
        both[0],
        passes=passes,
        seed=seed,
        new_task=None if new_task is None else both[1],
    )
    return Origin(*(getattr(found, one.name) for one in fields(found)))
