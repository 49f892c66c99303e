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
    shows. several: whether it takes all valid and all invalid answers, [row, option] padded with a
    negative id, instead of one of each.
    """

    name: str
    score: Scorer
    needs_distractor: bool = False
    single_token: bool = False
    signed: bool = False
    saturates: bool = False
    several: bool = False

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


def margin(logits: Logits, answer: Targets, distractor: Targets | None) -> Float[Tensor, "row"]:
    """Logit of the answer minus the largest other one, in standard deviations of the logits over
    the vocabulary. No scale of the logits moves it, and no token but the answer may come first.

    Raises:
        CapabilityError: the answer has several tokens.
    """
    if answer.shape[1] != 1:
        raise CapabilityError(
            "readout margin needs answers of one token; use readout: logprob, which scores every "
            "token of the answer"
        )
    return lead(logits, answer.unsqueeze(2))[:, 0]


def lead(logits: Logits, valid: Int[Tensor, "row readout option"]) -> Float[Tensor, "row readout"]:
    """The largest logit of the `valid` tokens minus that of all others, in standard deviations of
    the logits over the vocabulary. Negative ids are no tokens."""
    import torch

    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    tokens = torch.where(valid < 0, valid[..., :1], valid)  # the first is always one
    others = wide.scatter(2, tokens, float("-inf")).amax(dim=2)
    spread = wide.std(dim=2, correction=0).clamp_min(_LEAST_SPREAD)
    return (wide.gather(2, tokens).amax(dim=2) - others) / spread


_LEAST_SPREAD = 1e-30  # logits that are all equal then read 0


def log_odds(logits: Logits, answer: Targets, distractor: Targets | None) -> Float[Tensor, "row"]:
    """Log of the total probability of all valid answers minus log of that of all invalid ones: the
    difference of their logits' log-sum-exp, for the normaliser is the same. With one of each it is
    `logit_diff`. Single tokens; negative ids are no answers.

    Raises:
        CapabilityError: there is no distractor, or the readout is of several tokens.
    """
    if distractor is None or logits.shape[1] != 1:
        raise CapabilityError(
            "readout log_odds needs answers and distractors of one token each; "
            "use readout: logprob, which scores every token of the answer"
        )

    def total(options: Targets) -> Float[Tensor, "row"]:
        held = logits[:, 0].gather(1, options.clamp(min=0))
        return held.masked_fill(options < 0, float("-inf")).logsumexp(dim=1)

    return total(answer) - total(distractor)


READOUTS: dict[str, Readout] = {
    one.name: one
    for one in (
        Readout("logit_diff", logit_diff, needs_distractor=True, single_token=True, signed=True),
        Readout("logprob", logprob, saturates=True),
        Readout("margin", margin, single_token=True),
        Readout(
            "log_odds",
            log_odds,
            needs_distractor=True,
            single_token=True,
            signed=True,
            several=True,
        ),
    )
}


def most_likely(
    logits: Logits, answer: Targets, answers: Targets | None = None
) -> tuple[Bool[Tensor, "row"], Int[Tensor, "row"]]:
    """(whether every token of the answer is the most likely one of the whole vocabulary; the most
    likely token where that first is another than the answer's, else the answer's last). Of several
    valid `answers`, [row, option], whether any is the most likely, and which token is."""
    first = logits.argmax(dim=-1)
    if answers is not None:
        return (first[:, :1] == answers).any(dim=1), first[:, 0]
    same = first == answer
    until = same.long().cumprod(dim=1).sum(dim=1, keepdim=True).clamp(max=answer.shape[1] - 1)
    return same.all(dim=1), first.gather(1, until).squeeze(1)


def score(
    readout: Readout, logits: Float[Tensor, "row readout vocab"], batch: Batch, rows: Tensor
) -> Float[Tensor, "row"]:
    """F of the rows of `batch` that `logits` belong to; both may lie on any device."""
    answer, distractor = batch.answer, batch.distractor
    if readout.several:
        answer = answer if batch.answers is None else batch.answers
        distractor = distractor if batch.distractors is None else batch.distractors
    wrong = None if distractor is None else distractor[rows].to(logits.device)
    return readout.score(logits, answer[rows].to(logits.device), wrong)
