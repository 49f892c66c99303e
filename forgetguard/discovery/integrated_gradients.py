"""Integrated gradients along the inputs, at heads and MLPs: the gradient of attribution patching
averaged on the way from the counterfactual prompt to the clean one (Hanna et al., EAP-IG, arXiv
2403.17806, there for edges).

    IG_h = - mean_i sum_{pos, dim} g_h . ( a_h(x'_i) - a_h(x_i) )
    g_h  = 1/m sum_{k=1..m} dF/da_h at the token embeddings e(x') + k/m (e(x) - e(x'))

The points are the authors': the clean prompt is one of them (k = m), the counterfactual is not, and
m = 1 is attribution patching. Midpoints approximate the integral better, which made no difference:
with 5 points the correlation with exact patching on tiny:base was 0.94 to 1.00 for either. a_h is z
of a head and the output of an MLP; the gradient is taken where the difference is, for both.

On the way from one prompt to the other a saturated softmax is crossed where it is not saturated, so
its gradients do not vanish; but it is crossed in a leap, and where it is steep few points hit the
leap by chance. Cost: m forward and backward passes and one forward pass, whatever the number of
members.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import Batch
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.discovery.attribution_patching import Work, names, per_pair
from forgetguard.discovery.ranking import Progress, Ranking, by_size, from_halves
from forgetguard.errors import SpecificationError
from forgetguard.measures.interventions import Passes, Saved
from forgetguard.patching.gradients import (
    Activations,
    Read,
    activations,
    attributed,
    embeddings,
    gradients,
)


def integrated_gradients(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
    steps: int = 5,
) -> Ranking:
    """Score `members`, in nats, by integrated gradients along the inputs in `steps` points (m
    above). Nothing is drawn: `seed` has no effect. Scores are not checked by exact patching.

    Raises:
        AnatomyError: a member is not in the model.
        SpecificationError: there are fewer than 1 steps, or no members.
        MeasurementError: logits are not finite, or memory does not suffice for one row.
    """
    if steps < 1:
        raise SpecificationError(f"steps is {steps!r}: integrated gradients need at least 1")

    def work(batch: Batch, rows: slice, read: Read) -> Tensor:
        return _attributions(anatomy, batch, rows, members, read, steps)

    given = Work(anatomy, capability, members, saved, progress)
    name = f"integrated_gradients;{steps};{names(members)}"
    values = per_pair(given, len(members), work, name)
    means = (-values.mean(axis=1)).tolist()
    return Ranking(
        by_size(dict(zip(members, means, strict=True))),
        "integrated_gradients",
        {"steps": steps},
        by_half=from_halves(members, -values),
    )


def _attributions(
    anatomy: Anatomy,
    batch: Batch,
    rows: slice,
    members: Sequence[Member],
    read: Read,
    steps: int,
) -> Tensor:
    """Each member's averaged gradient dotted with its difference, [member, row]."""
    clean, counterfactual = batch.clean[rows], batch.counterfactual[rows]
    after = activations(anatomy, counterfactual, batch.positions, members)
    target, origin = embeddings(anatomy, clean), embeddings(anatomy, counterfactual)
    total: list[Tensor] = []
    for step in range(1, steps + 1):
        # The last point is the clean prompt bit for bit, so its activations are the clean ones.
        at = target if step == steps else torch.lerp(origin, target, step / steps)
        before, gradient = gradients(anatomy, clean, batch.positions, members, read, embedded=at)
        found = [one / steps for one in gradient.tensors()]
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    mean: Activations = before.like(total)
    return attributed(anatomy, members, mean, after.minus(before))
