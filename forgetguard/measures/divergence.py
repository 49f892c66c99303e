"""How far two models' predictions lie apart, token by token: forward and reverse KL, and what
became of the tokens that the base finds likely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.capabilities.batches import BATCH_TOKENS
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.errors import MeasurementError
from forgetguard.measures.prompt_pass import PromptBatch, Reader, run
from forgetguard.patching.forward import check_finite

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MEMORY_BYTES = 4 << 30  # what kept logits may take
_BLOCK = 1 << 21  # logits normalised at once, in float64: about 100 MB with all that is derived
MODE = 0.9  # of the base's probability, held by the tokens that it finds likely
_LIKELY = 512  # tokens that often hold that much; where they do not all are sorted


@dataclass(frozen=True, slots=True)
class Passage:
    """Token ids that both models are given, and where their next-token distributions are compared.

    Attributes:
        ids: a prompt, and its completion but for the last token.
        positions: into `ids`; the distribution at position t is that of the token at t + 1.
        targets: the completion's tokens, one a position; empty where there is no completion.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    targets: tuple[int, ...] = ()


def passage(prompt: Sequence[int], completion: Sequence[int] = ()) -> Passage:
    """A prompt with a completion to be teacher forced, read where the completion's tokens are
    predicted; without one, where the prompt's next token is.

    Raises:
        MeasurementError: the prompt is empty: nothing predicts the first token of a text.
    """
    if not prompt:
        raise MeasurementError(
            "a passage needs a prompt of at least one token (a model's first prediction is that of "
            "the second token): put the beginning-of-text token before it"
        )
    last, count = len(prompt) - 1, max(1, len(completion))
    return Passage((*prompt, *completion[:-1]), tuple(range(last, last + count)), tuple(completion))


def passages_of(capability: EncodedCapability) -> tuple[Passage, ...]:
    """The clean prompt of every pair with its answer, in the order of the pairs."""
    return tuple(passage(pair.clean, pair.answer) for pair in capability.encoded.pairs)


# --- Over the whole vocabulary, exactly -----------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What one model predicts: its logits as they are, in its own dtype, on the CPU.

    One row a position, passage by passage.
    """

    passages: tuple[Passage, ...]
    logits: Float[Tensor, "position vocab"]


@dataclass(frozen=True, slots=True, eq=False)
class Divergence:
    """KL divergences of next-token distributions, over `vocabulary` ids, in nats.

    Attributes:
        forward: KL(base || tuned), float64 [position]. Large where the tuned model has dropped
            what the base would say. Its mean over prompts of the new task is what RL's Razor
            (arXiv 2509.04259) relates forgetting to.
        reverse: KL(tuned || base), float64 [position]. Large where the tuned model says what the
            base would not.
        mass: what tuned lost of the base's probability of its likely tokens, float64 [position].
        drift: KL(base || tuned) among these alone, float64 [position]. See `token_mode`.
        passage: which passage each position is of, int64 [position].
        vocabulary: the ids that both models have. Where one has more (fine-tuning added tokens),
            its logits are cut to these and renormalised.
    """

    forward: FloatArray
    reverse: FloatArray
    mass: FloatArray
    drift: FloatArray
    passage: IntArray
    vocabulary: int

    def means(self, values: FloatArray) -> FloatArray:
        """The mean of one of these over each passage's positions, float64 [passage]."""
        return by_passage(values, self.passage) / np.bincount(self.passage)


def predict(anatomy: Anatomy, passages: Sequence[Passage]) -> Predictions:
    """Run one model and keep every logit, so that the other can be loaded in its place.

    Takes positions x vocabulary x bytes of the model's dtype: at 152,000 ids in bfloat16, 0.3 MB
    a position.

    Raises:
        MeasurementError: no passages, more than `MEMORY_BYTES`, logits that are not finite.
    """
    reader = predicting(passages)
    run(anatomy, prompt_batches(passages), [reader])
    return reader.found()


def predicting(passages: Sequence[Passage]) -> Reader[Predictions]:
    """What does so in a pass that others share."""
    starts = boundaries(passages)
    kept = torch.empty(0)

    def take(rows: Sequence[int], logits: Tensor, _: object) -> None:
        nonlocal kept
        check_finite(logits, "a prompt")
        if not len(kept):
            kept = _room((int(starts[-1]), logits.shape[-1]), logits.dtype)
        for row, found in zip(rows, logits.cpu(), strict=True):
            kept[starts[row] : starts[row + 1]] = found

    return Reader(take, lambda: Predictions(tuple(passages), kept), len(passages))


def divergence(base: Anatomy, kept: Predictions, *, vocabulary: int | None = None) -> Divergence:
    """Run the base on the passages of `kept`, the tuned model's predictions, and compare position
    by position.

    Exact over the vocabulary; normalised and summed in float64. Bit-for-bit equal logits give
    exactly 0. Only the kept logits are in memory beside the model.

    Args:
        vocabulary: cut both to so many ids; by default to those that both have.

    Raises:
        MeasurementError: logits that are not finite, or a vocabulary that a model does not have.
    """
    reader = diverging(kept, vocabulary)
    run(base, prompt_batches(kept.passages), [reader])
    return reader.found()


def diverging(kept: Predictions, vocabulary: int | None = None) -> Reader[Divergence]:
    """What does so in a pass of the base that others share."""
    starts = boundaries(kept.passages)
    read = np.empty((4, int(starts[-1])))
    ids = 0

    def take(rows: Sequence[int], logits: Tensor, _: object) -> None:
        nonlocal ids
        check_finite(logits, "a prompt")
        ids = common_ids(vocabulary, kept.logits.shape[-1], logits.shape[-1])
        for row, here in zip(rows, logits, strict=True):
            where = slice(starts[row], starts[row + 1])
            tuned = kept.logits[where].to(here.device)
            both = here[:, :ids], tuned[:, :ids]
            found = *token_divergence(*both), *token_mode(*both)
            read[:, where] = torch.stack(found).cpu().numpy()

    def result() -> Divergence:
        passage_of = np.repeat(np.arange(len(kept.passages)), np.diff(starts))
        forward_kl, reverse_kl, mass, drift = read
        return Divergence(forward_kl, reverse_kl, mass, drift, passage_of, ids)

    return Reader(take, result, len(kept.passages))


def token_divergence(
    base: Float[Tensor, "position vocab"], tuned: Float[Tensor, "position vocab"]
) -> tuple[Float[Tensor, "position"], Float[Tensor, "position"]]:
    """KL(base || tuned) and KL(tuned || base) of two sets of logits over the same ids, in nats:
    the sum over the vocabulary of p (log p - log q). float64, never below 0."""
    pairs = []
    step = max(1, _BLOCK // base.shape[-1])
    for one, other in zip(base.split(step), tuned.split(step), strict=True):
        log_p, log_q = one.double().log_softmax(-1), other.double().log_softmax(-1)
        pairs.append(
            ((log_p.exp() * (log_p - log_q)).sum(-1), (log_q.exp() * (log_q - log_p)).sum(-1))
        )
    there, back = (torch.cat(found) for found in zip(*pairs, strict=True))
    # Rounding leaves sums of about -1e-17 where the distributions are almost equal.
    return there.clamp_min(0.0), back.clamp_min(0.0)


def token_mode(
    base: Float[Tensor, "position vocab"], tuned: Float[Tensor, "position vocab"]
) -> tuple[Float[Tensor, "position"], Float[Tensor, "position"]]:
    """What became of the base's mode A, the fewest tokens that hold at least `MODE` of its
    probability p: the mass that the other model's q lost of it, p(A) - q(A), and the drift within
    it, KL(p given A || q given A) in nats. float64.

    With B = not A, KL(p || q) is the KL of (p(A), p(B)) against (q(A), q(B)), plus
    p(A) x drift, plus p(B) x the same among B: the two are what arXiv 2603.12163 calls forgetting
    of mass and drift, for its old mode.
    """
    mass, drift = [], []
    step = max(1, _BLOCK // base.shape[-1])
    for one, other in zip(base.split(step), tuned.split(step), strict=True):
        whole, size = one.double().log_softmax(-1), one.shape[-1]
        log_p, order = whole.topk(min(_LIKELY, size))
        if size > _LIKELY and (log_p.exp().sum(-1) < MODE).any():
            log_p, order = whole.topk(size)
        log_q = other.double().log_softmax(-1).gather(-1, order)
        outside = log_p.exp().cumsum(-1) - log_p.exp() >= MODE
        lost = (log_p.exp() - log_q.exp()).masked_fill(outside, 0.0)
        within_p, within_q = (
            values.masked_fill(outside, -torch.inf).log_softmax(-1) for values in (log_p, log_q)
        )
        apart = (within_p - within_q).masked_fill(outside, 0.0)
        mass.append(lost.sum(-1))
        drift.append((within_p.exp() * apart).sum(-1).clamp_min(0.0))
    return torch.cat(mass), torch.cat(drift)


# --- Running models ------------------------------------------------------------------------------


def batches(passages: Sequence[Passage]) -> Iterator[list[int]]:
    """Indices of passages that may run together: one length and the same positions, so that
    nothing is padded. The same passages give the same batches, for every model."""

    def shape(row: int) -> tuple[int, tuple[int, ...]]:
        return len(passages[row].ids), passages[row].positions

    for (length, _), bucket in groupby(sorted(range(len(passages)), key=shape), key=shape):
        rows, step = list(bucket), max(1, BATCH_TOKENS // length)
        yield from (rows[start : start + step] for start in range(0, len(rows), step))


def prompt_batches(passages: Sequence[Passage]) -> Iterator[PromptBatch]:
    """`batches`, as they are run."""
    for rows in batches(passages):
        ids = torch.tensor([passages[row].ids for row in rows])
        yield rows, ids, passages[rows[0]].positions


def boundaries(passages: Sequence[Passage]) -> IntArray:
    """Where each passage's positions begin among all of them, and their number, [passage + 1]
    (raises MeasurementError where there are no passages)."""
    if not passages:
        raise MeasurementError("there are no passages to compare the models on: give some prompts")
    return np.cumsum([0, *(len(one.positions) for one in passages)])


def _room(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    size = shape[0] * shape[1] * dtype.itemsize
    if size > MEMORY_BYTES:
        raise MeasurementError(
            f"keeping {shape[0]} positions x {shape[1]} logits takes {size / 2**30:.1f} GiB, more "
            f"than the {MEMORY_BYTES / 2**30:.1f} GiB allowed: give fewer or shorter prompts"
        )
    return torch.empty(shape, dtype=dtype)


def common_ids(asked: int | None, *sizes: int) -> int:
    """How many ids are compared: `asked`, or what the smaller vocabulary has (raises
    MeasurementError where that is fewer than asked)."""
    if asked is None:
        return min(sizes)
    if not 0 < asked <= min(sizes):
        raise MeasurementError(
            f"vocabulary={asked}, but a model has logits for {min(sizes)} ids: give at most that"
        )
    return asked


def by_passage(values: FloatArray, passage_of: IntArray) -> FloatArray:
    """Of the values of each passage's positions, float64 [passage]."""
    return np.bincount(passage_of, weights=values).astype(np.float64)
