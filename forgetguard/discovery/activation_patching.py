"""Activation patching: every member's effect, exactly, by patching each alone.

Noising patches the counterfactual's contribution into the clean run and scores what is lost;
denoising patches the clean contribution into the counterfactual run and scores what is regained.
Cost: one wavefront over all members; it grows with members x pairs x layers after the member.
"""

from __future__ import annotations

from collections.abc import Sequence

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import exchange_prompts
from forgetguard.discovery.ranking import Progress, Ranking, by_size, from_halves, of_stage
from forgetguard.errors import SpecificationError
from forgetguard.measures.ablation import ablation
from forgetguard.measures.interventions import Intervention, Passes, Saved, intervene

DIRECTIONS = ("noising", "denoising")


def activation_patching(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
    direction: str = "noising",
) -> Ranking:
    """Score `members` by the mean over pairs of F(x) - F(x with r_h from x') (noising), or of
    F(x' with r_h from x) - F(x') (denoising); F is the readout of the clean prompt's answer, in
    nats. Nothing is drawn: `seed` has no effect.

    Raises:
        SpecificationError: there is no such direction.
    """
    if direction not in DIRECTIONS:
        raise SpecificationError(
            f"unknown direction {direction!r}; there are {', '.join(DIRECTIONS)}"
        )
    noising = direction == "noising"
    seen = capability if noising else exchange_prompts(capability)
    result = intervene(
        anatomy,
        seen,
        [Intervention((member,)) for member in members],
        ablation(anatomy, seen, members),
        progress=of_stage(progress, "patching one by one"),
        saved=saved,
        passes=passes if noising else None,
    )
    lost = result.clean.readout[None] - result.readout
    effects = lost if noising else -lost
    return Ranking(
        by_size(dict(zip(members, effects.mean(axis=1).tolist(), strict=True))),
        "activation_patching",
        {"direction": direction},
        patched=frozenset(members),
        by_half=from_halves(members, effects),
    )
