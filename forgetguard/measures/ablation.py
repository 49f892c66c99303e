"""What members are replaced with when they are taken away: the counterfactual, a mean, or zero.

Faithfulness depends on it (Miller et al., arXiv 2407.08734), so it is part of every number's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import Batch
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.errors import SpecificationError
from forgetguard.measures.interventions import Sources
from forgetguard.patching.capture import capture
from forgetguard.patching.clean import CleanPass
from forgetguard.patching.prefix import capture_beside
from forgetguard.patching.sources import Source

ABLATIONS = ("counterfactual", "mean", "zero")


def ablation(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    kind: str = "counterfactual",
) -> Sources:
    """The source that takes `members` away, under the name `kind`.

    `counterfactual`: each pair's own counterfactual prompt. `mean`: the mean over the clean and
    counterfactual prompts of all pairs of that token length, position by position. `zero`: nothing.

    Raises:
        SpecificationError: there is no such ablation.
    """
    if kind not in ABLATIONS:
        raise SpecificationError(f"unknown ablation {kind!r}; there are {', '.join(ABLATIONS)}")
    if kind == "counterfactual":
        return lambda _, batch, clean: {kind: counterfactual(batch, members, clean)}
    means = _means(anatomy, capability, members) if kind == "mean" else {}

    def constant(_: int, batch: Batch, __: CleanPass) -> Mapping[str, Source]:
        length = batch.clean.shape[1]
        return {kind: Source(means[length] if kind == "mean" else _zeros(anatomy, batch, members))}

    return constant


def counterfactual(batch: Batch, members: Sequence[Member], clean: CleanPass) -> Source:
    """What `members` contribute on the batch's counterfactual prompts."""
    captured = capture_beside(clean, batch.counterfactual, batch.start, members)
    return Source(captured.z, start=batch.start)


def _means(
    anatomy: Anatomy, capability: EncodedCapability, members: Sequence[Member]
) -> dict[int, dict[Member, Tensor]]:
    """By prompt length, the mean activation of each member, [1, pos, width] float32."""
    sums: dict[int, dict[Member, Tensor]] = {}
    rows: dict[int, int] = {}
    for batch in capability.batches:
        length = batch.clean.shape[1]
        total = sums.setdefault(length, {})
        for ids in (batch.clean, batch.counterfactual):
            for member, z in capture(anatomy, ids, batch.positions, members).z.items():
                part = z.float().sum(dim=0, keepdim=True)
                total[member] = total[member] + part if member in total else part
            rows[length] = rows.get(length, 0) + len(ids)
    return {
        length: {member: value / rows[length] for member, value in total.items()}
        for length, total in sums.items()
    }


def _zeros(anatomy: Anatomy, batch: Batch, members: Sequence[Member]) -> dict[Member, Tensor]:
    captured = capture(anatomy, batch.clean[:1], batch.positions, members)
    return {member: torch.zeros_like(z) for member, z in captured.z.items()}
