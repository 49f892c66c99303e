"""Desiderata-based component masking (Davies et al., arXiv 2307.03637; used on fine-tuned models by
Prakash et al., arXiv 2402.14811): a mask over members, learned from several sets of prompt pairs,
each saying what the model must answer when the masked members come from the other prompt.

Masks are parameters in [0, 1], clamped after every step, and rounded at the end. Orientation, here
as everywhere: m = 1 means REPLACED by the counterfactual's contribution, and the price is on m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import Logits, Targets
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.variants import exchange_answers
from forgetguard.discovery.mask_training import Aim, Masks, Schedule, masked_ranking, start
from forgetguard.discovery.ranking import Progress, Ranking
from forgetguard.errors import SpecificationError
from forgetguard.measures.interventions import Passes, Saved

WANTS = ("change", "keep", "suffice")

# Of the masks at the start: mean and standard deviation. From 1 (all replaced) only one member of a
# series is ever found: a change of the others does nothing (measured on a model with a known
# circuit: 1 of 2 heads, 1 of 3 members; from one half, all of them).
START, SPREAD = 0.5, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Desideratum:
    """What the model must answer on the clean prompts of `pairs`.

    want: `change`: the counterfactual's answer (the pairs' distractor), when the masked members
        come from the counterfactual prompt. `keep`: the clean answer, although they do: the masked
        members must not carry what these pairs change. `suffice` (ours): the clean answer, when all
        members BUT the masked come from the counterfactual prompt.
    """

    pairs: EncodedCapability
    want: str = "change"


def desiderata_masking(
    anatomy: Anatomy,
    capability: EncodedCapability,
    members: Sequence[Member],
    *,
    seed: int = 0,
    progress: Progress | None = None,
    saved: Saved | None = None,
    passes: Passes | None = None,
    steps: int = 300,
    batch: int = 8,
    learning_rate: float = 0.02,
    sparsity: float = 0.01,
    positions: str = "all",
    desiderata: Sequence[Desideratum] = (),
) -> Ranking:
    """Learn a mask over `members` that minimises, summed over desiderata, minus the mean logit of
    the wanted answer's tokens, plus sparsity * sum of m. The papers' answers are single tokens;
    those of several are teacher-forced, and the mean is taken over them.

    Scores are the masks before rounding, the selected set is m > 0.5. A logit has no ceiling: what
    raises the wanted token's by more than the price is masked, whether or not the answer needs it.

    Args:
        seed: draws the start and the minibatches.
        steps, batch, learning_rate: of Adam; pairs a minibatch, one of each desideratum a step.
        sparsity: the price of one member, in logits.
        positions: mix at `all` positions or at the prompt's `last` token alone.
        desiderata: by default one, that `capability` change; where given, they alone count.

    Findings: `losses`, minus the mean wanted logit of each desideratum with the selected set, all
    or nothing, over all pairs; `loss`, what was minimised, at the masks before rounding; `size`;
    and `unsettled`, how many members ended with 0.1 < m < 0.9.

    Raises:
        SpecificationError: a setting cannot be run.
        CapabilityError: pairs of a desideratum to `change` have no distractor.
        AnatomyError: a member is not in the model.
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    schedule = Schedule(steps, batch, learning_rate, sparsity, positions, seed)
    desiderata = tuple(desiderata) or (Desideratum(capability),)
    named = [f"{one.want} {one.pairs.capability.name}" for one in desiderata]
    settings = {**asdict(schedule), "desiderata": named}
    ranking, losses = masked_ranking(
        anatomy,
        members,
        [_aim(one) for one in desiderata],
        Masks(
            start(len(members), seed, START, SPREAD),
            lambda mask, _: mask.clone(),
            lambda mask, _: mask.clamp(0.0, 1.0),
            lambda mask: mask,
        ),
        schedule,
        "desiderata_masking",
        settings,
        progress=progress,
        saved=saved,
    )
    return replace(ranking, findings={"losses": losses, **ranking.findings})


def negative_logit(logits: Logits, answer: Targets) -> Float[Tensor, "row"]:
    """Minus the mean logit of the answer's tokens."""
    return -logits.gather(2, answer.unsqueeze(2)).squeeze(2).mean(dim=1)


def _aim(one: Desideratum) -> Aim:
    if one.want not in WANTS:
        raise SpecificationError(f"a desideratum wants {one.want!r}; there are {', '.join(WANTS)}")
    pairs = exchange_answers(one.pairs) if one.want == "change" else one.pairs
    return Aim(pairs, negative_logit, complement=one.want == "suffice")
