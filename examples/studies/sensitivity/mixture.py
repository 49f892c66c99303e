"""A planted model whose damage is known exactly: one head's output mixed with its counterfactual's.

    r_h = (1 - d) r_h(x) + d r_h(x')        d = 0: the base; d = 1: DCV of h is 1, by construction

The other heads follow: those after h inherit what it does. Nothing else is changed, so that the
head's DCV at any dose is what a literal forward pass with that mixture reads.
"""

from __future__ import annotations

import torch

from examples.studies.sensitivity.planting import check_dose
from forgetguard.anatomy.contributions import output_slices
from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Head, Member, heads_of
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.measures.behaviour import empty_behaviour, read_batch
from forgetguard.measures.vulnerability import ForeignHeads
from forgetguard.patching.capture import capture
from forgetguard.patching.mixing import cache_sources, mixed


def mixed_head(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: tuple[Member, ...],
    head: Head,
    dose: float,
) -> ForeignHeads:
    """What `members` contribute, and what the model does, with `dose` of the mixture in `head`.

    `own` is the planted head's own mixture and everybody else's own contribution: what the head's
    inputs were is not changed, so its damage is all its own.

    Raises:
        AnatomyError: a member, or `head`, is not in the model.
        SpecificationError: the dose is not from 0 to 1.
    """
    check_dose(dose)
    anatomy.check([*members, head])
    behaviour = empty_behaviour(capability.n_pairs)
    z, own = [], []
    for batch in capability.batches:
        before = capture(anatomy, batch.clean, batch.positions, heads_of(members)).z
        sources = cache_sources(anatomy, batch.counterfactual, [head])
        with mixed(anatomy, [head], torch.tensor([dose]), sources):
            planted = capture(anatomy, batch.clean, batch.positions, members)
        read_batch(capability, batch, planted.logits, behaviour)
        z.append({one: value.cpu() for one, value in planted.z.items()})
        own.append({one: (planted.z if one == head else before)[one].cpu() for one in before})
    weights = {one: value.cpu() for one, value in output_slices(anatomy, members).items()}
    return ForeignHeads(tuple(z), weights, behaviour, tuple(own))
