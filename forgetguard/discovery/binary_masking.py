"""Differentiable binary masking, the discovery of arXiv 2605.28860: a mask over members, learned by
gradient and annealed until it is binary.

m = sigmoid(l / T), T falling geometrically; contributions are mixed, r + m (r' - r), so that m = 1
means replaced by the counterfactual's; loss = -log P_geo(y' | x, mixed) + lambda * sum m.

The paper's full text and code were not to be had: this follows third-party notes on it and a later
template by a co-author (300 steps, batches of 8, Adam at 0.1, T from 1 to 0.05, small random start;
it mixes at the last prompt token only: `positions="last"`). lambda is not published.

What that loss asks for is less than a faithful circuit. Of members that act one after the other,
each turns the answer once it is replaced, so that a price on members ends at the few that all
passes through; and with all others replaced, those few carry nothing. `objective` offers, beside
the paper's `change`, what is ours: `suffice` replaces the members OUTSIDE the mask and asks for the
clean answer, which is what faithfulness measures; `both` is the sum of the two losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.batches import Logits, Targets
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.capabilities.readouts import logprob
from forgetguard.capabilities.variants import exchange_answers
from forgetguard.discovery.mask_training import (
    Aim,
    AtStep,
    Masks,
    Parameters,
    Schedule,
    masked_ranking,
    start,
)
from forgetguard.discovery.ranking import Progress, Ranking
from forgetguard.errors import SpecificationError
from forgetguard.measures.interventions import Passes, Saved

OBJECTIVES = ("change", "suffice", "both")
ANNEALINGS = ("geometric", "linear")

SPARSITY = 0.01
"""The default lambda, ours. On two models whose circuits are known (tests/known_circuit.py; 2 of 16
heads, 3 of 20 members; 200 steps, two seeds), `change` finds exactly the circuit from 1e-4 to 1e-2
(above it a part, below it more), `suffice` and `both` from 1e-4 to 1e-1 or more. On tiny:base, 24
heads, 32 pairs, 300 steps, two seeds, size and faithfulness on 32 other pairs (logit difference,
counterfactual ablation) are:

    lambda    ioi, change      ioi, both        induction, change  induction, both
    1e-5      12-14  .89-.93                    19     .88
    1e-4      5-6    .31-.33   21-22  1.00      16     .59
    1e-3      4      .10-.21   21     1.01      11-12  .29-.37     22     1.00
    1e-2      3      -.00      15     .97       6      .02         20     .99
    3e-2      2      -.00      12-14  .87-.96   5      .01         19     .97
    1e-1      2      -.00      10     .74-.77   3      .02         16-17  .89-.91
    3e-1      2      -.00      8-9    .62-.70   2-3    .00-.02     11     .62
    1         1-2    -.00      7      .51       2      .00

Random sets of 12 and 16 heads have .2 and .4 on average. The `change` sets up to lambda 0.1 take
0.81 or more of the readout with them when replaced. Sizes also depend on the steps: fewer leave
more members in. The paper's circuits, half of all heads and faithful, look like `change` at a
lambda near 0."""
SPREAD = 0.1  # standard deviation of l at the start: all masks near one half

# |l| is kept below this times the first temperature. A sigmoid that has gone far at a high
# temperature (l = 5: 0.993) passes on next to no gradient, and lower temperatures only make it
# less: what the first steps said would stand for good.
BOUND = 2.0


def binary_masking(
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
    learning_rate: float = 0.1,
    temperature: tuple[float, float] = (1.0, 0.05),
    annealing: str = "geometric",
    sparsity: float = SPARSITY,
    positions: str = "all",
    objective: str = "change",
) -> Ranking:
    """Learn a mask over `members`. Its scores are m at the last temperature, ordered by l; its
    selected set is m > 0.5.

    Pairs need a distractor, which is y', the counterfactual's answer (not for `suffice`). Answers
    of several tokens are teacher-forced.

    Args:
        seed: draws the start and the minibatches.
        steps, batch, learning_rate: of Adam; pairs a minibatch.
        temperature: of the first and the last step. annealing: how it falls between them. The
            schedule in the code of arXiv 2409.04478 is linear, from 10 to 0.1, with
            learning_rate=1e-3, batch=32 and sparsity=0.
        sparsity: lambda, the price of one member in nats of log P_geo. A sum over members, as in
            the paper, so that it does not depend on how many there are.
        positions: mix at `all` positions or at the prompt's `last` token alone.
        objective: `change`, `suffice` or `both`; see the module.

    Findings: `change` and `suffice`, the mean losses in nats of the selected set, all or nothing,
    over all pairs; `loss`, what was minimised, at the final mask; `size`; and `unsettled`, how many
    members ended with 0.1 < m < 0.9: where that is not 0, the mask has not become binary (more
    steps, or a lower last temperature).

    Raises:
        SpecificationError: a setting cannot be run.
        CapabilityError: pairs have no distractor.
        AnatomyError: a member is not in the model.
        MeasurementError: logits are not finite, or memory does not suffice.
    """
    schedule = Schedule(steps, batch, learning_rate, sparsity, positions, seed)
    settings = {**asdict(schedule), "temperature": list(temperature), "objective": objective}
    settings |= {"annealing": annealing} if annealing != "geometric" else {}
    _check(temperature, objective, annealing)
    aims = _aims(capability, objective)
    bound = BOUND * temperature[0]
    ranking, losses = masked_ranking(
        anatomy,
        members,
        list(aims.values()),
        Masks(
            start(len(members), seed, 0.0, SPREAD * temperature[0]),
            _annealed(temperature, steps, linear=annealing == "linear"),
            lambda logits, _: logits.clamp(-bound, bound),
            lambda logits: torch.sigmoid(logits / temperature[1]),
        ),
        schedule,
        "binary_masking",
        settings,
        progress=progress,
        saved=saved,
    )
    return replace(ranking, findings={**dict(zip(aims, losses, strict=True)), **ranking.findings})


def negative_logprob(logits: Logits, answer: Targets) -> Float[Tensor, "row"]:
    """-log P_geo of the answer, in nats."""
    return -logprob(logits, answer, None)


def _aims(capability: EncodedCapability, objective: str) -> dict[str, Aim]:
    aims: dict[str, Aim] = {}
    if objective in ("change", "both"):
        aims["change"] = Aim(exchange_answers(capability), negative_logprob)
    if objective in ("suffice", "both"):
        aims["suffice"] = Aim(capability, negative_logprob, complement=True)
    return aims


def _annealed(temperature: tuple[float, float], steps: int, *, linear: bool = False) -> AtStep:
    first, last = temperature

    def mask(logits: Parameters, step: int) -> Parameters:
        done = step / max(steps - 1, 1)
        now = first + (last - first) * done if linear else first * (last / first) ** done
        return torch.sigmoid(logits / now)

    return mask


def _check(temperature: tuple[float, float], objective: str, annealing: str) -> None:
    first, last = temperature
    if not first >= last > 0:
        raise SpecificationError(
            f"binary_masking: temperature is ({first}, {last}); it must fall from the first to "
            "the second and stay above 0"
        )
    names = ("objective", objective, OBJECTIVES), ("annealing", annealing, ANNEALINGS)
    for what, given, known in names:
        if given not in known:
            raise SpecificationError(
                f"binary_masking: unknown {what} {given!r}; there are {', '.join(known)}"
            )
