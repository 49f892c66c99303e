"""Readouts F: graded scores, in nats, of one model on one prompt; what counts as right by each; and
which token is the most likely of all.

Users add a readout by adding a record to READOUTS. torch is imported where tensors are touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from forgetguard.errors import CapabilityError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from forgetguard.capabilities.batches import Batch, Logits, Targets

Scorer: TypeAlias = "Callable[[Logits, Targets, Targets | None], Float[Tensor, 'row']]"


@dataclass(frozen=True, slots=True)
class Readout:
    """A readout and its traits.

    needs_distractor: whether it compares the answer with one. single_token: whether answers (and
    distractors) must be one token. signed: whether 0 means that the model is undecided between the
    answer and the distractor, so that a prompt is answered right where it reads above 0, by chance
    on half of them. Of the others a prompt is answered right where the answer is the most likely
    of all tokens, by chance never. saturates: whether it has a ceiling, near which a loss hardly
    shows.
    """

    name: str
    score: Scorer
    needs_distractor: bool = False
    single_token: bool = False
    signed: bool = False
    saturates: bool = False

    @property
    def chance(self) -> float:
        """The share of prompts that a model which knows nothing answers right."""
        return 0.5 if self.signed else 0.0

    def right(self, values: Float[Tensor, "row"], top1: Bool[Tensor, "row"]) -> Bool[Tensor, "row"]:
        """Whether prompts are answered right, from F and from whether the answer comes first."""
        return values > 0 if self.signed else top1


def logit_diff(logits: Logits, answer: Targets, distractor: Targets | None) -> Float[Tensor, "row"]:
    """Logit of the answer y minus logit of the distractor y', both single tokens.

    Raises:
        CapabilityError: there is no distractor, or one of them has several tokens.
    """
    if distractor is None or answer.shape[1] != 1 or distractor.shape[1] != 1:
        raise CapabilityError(
            "readout logit_diff needs an answer and a distractor of one token each; "
            "use readout: logprob, which scores every token of the answer"
        )
    return (logits[:, 0].gather(1, answer) - logits[:, 0].gather(1, distractor)).squeeze(1)


def logprob(logits: Logits, answer: Targets, distractor: Targets | None) -> Float[Tensor, "row"]:
    """Mean log-probability of the answer's tokens, each given the ones before it; its exponential
    is the geometric-mean probability of arXiv 2605.28860. No token is left out, however unlikely.
    """
    import torch

    per_token = torch.log_softmax(logits, dim=-1).gather(2, answer.unsqueeze(2)).squeeze(2)
    return per_token.mean(dim=1)


READOUTS: dict[str, Readout] = {
    one.name: one
    for one in (
        Readout("logit_diff", logit_diff, needs_distractor=True, single_token=True, signed=True),
        Readout("logprob", logprob, saturates=True),
    )
}


def most_likely(logits: Logits, answer: Targets) -> tuple[Bool[Tensor, "row"], Int[Tensor, "row"]]:
    """(whether every token of the answer is the most likely one of the whole vocabulary; the most
    likely token where that first is another than the answer's, else the answer's last)."""
    first = logits.argmax(dim=-1)
    same = first == answer
    until = same.long().cumprod(dim=1).sum(dim=1, keepdim=True).clamp(max=answer.shape[1] - 1)
    return same.all(dim=1), first.gather(1, until).squeeze(1)


def score(
    readout: Readout, logits: Float[Tensor, "row readout vocab"], batch: Batch, rows: Tensor
) -> Float[Tensor, "row"]:
    """F of the rows of `batch` that `logits` belong to; both may lie on any device."""
    answer = batch.answer[rows].to(logits.device)
    distractor = None if batch.distractor is None else batch.distractor[rows].to(logits.device)
    return readout.score(logits, answer, distractor)
