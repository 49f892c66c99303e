"""How far two models' predictions lie apart: forward and reverse KL, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.capabilities.batches import BATCH_TOKENS
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.errors import MeasurementError
from forgetguard.patching.forward import check_finite, forward

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Side = Literal["base", "tuned"]

MEMORY_BYTES = 4 << 30  # what kept logits may take without a file
_BLOCK = 1 << 21  # logits normalised at once, in float64: about 100 MB with all that is derived


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
    """What one model predicts: its logits as they are, in its own dtype, on the CPU (or in a file).

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
        passage: which passage each position is of, int64 [position].
        vocabulary: the ids that both models have. Where one has more (fine-tuning added tokens),
            its logits are cut to these and renormalised.
        cut_base, cut_tuned: the probability each model had on ids that were cut, [position]; all 0
            where nothing was.
    """

    forward: FloatArray
    reverse: FloatArray
    passage: IntArray
    vocabulary: int
    cut_base: FloatArray
    cut_tuned: FloatArray

    @property
    def forward_by_passage(self) -> FloatArray:
        """Mean of `forward` over the passage's positions, nats per token, float64 [passage]."""
        return by_passage(self.forward, self.passage) / np.bincount(self.passage)

    @property
    def reverse_by_passage(self) -> FloatArray:
        """Mean of `reverse` over the passage's positions, nats per token, float64 [passage]."""
        return by_passage(self.reverse, self.passage) / np.bincount(self.passage)


def predict(
    anatomy: Anatomy,
    passages: Sequence[Passage],
    *,
    file: Path | None = None,
    memory: int = MEMORY_BYTES,
) -> Predictions:
    """Run one model and keep every logit, so that the other can be loaded in its place.

    Takes positions x vocabulary x bytes of the model's dtype: at 152,000 ids in bfloat16, 0.3 MB
    a position. With `file` (which is overwritten, and must stay while the result is in use) it lies
    on disk.

    Raises:
        MeasurementError: no passages, more than `memory` bytes without a file, logits that are not
            finite.
    """
    starts = boundaries(passages)
    kept: Tensor | None = None
    for rows, logits in run_each(anatomy, passages):
        if kept is None:
            kept = _room((int(starts[-1]), logits.shape[-1]), logits.dtype, file, memory)
        for row, found in zip(rows, logits.cpu(), strict=True):
            kept[starts[row] : starts[row + 1]] = found
    assert kept is not None  # there is a passage, or `boundaries` has refused
    return Predictions(tuple(passages), kept)


def divergence(
    kept: Predictions, anatomy: Anatomy, *, kept_is: Side = "base", vocabulary: int | None = None
) -> Divergence:
    """Run the other model on the same passages, and compare position by position.

    Exact over the vocabulary; normalised and summed in float64. Bit-for-bit equal logits give
    exactly 0. Only the kept logits are in memory beside the model.

    Args:
        kept: from `predict`, of the model that `kept_is`.
        anatomy: the other model.
        vocabulary: cut both to so many ids; by default to those that both have.

    Raises:
        MeasurementError: logits that are not finite, or a vocabulary that a model does not have.
    """
    starts = boundaries(kept.passages)
    total = int(starts[-1])
    forward_kl, reverse_kl, cut_kept, cut_other = (np.empty(total) for _ in range(4))
    for rows, logits in run_each(anatomy, kept.passages):
        vocabulary = common_ids(vocabulary, kept.logits.shape[-1], logits.shape[-1])
        for row, there in zip(rows, logits, strict=True):
            where = slice(starts[row], starts[row + 1])
            here = kept.logits[where].to(there.device)
            base, tuned = (here, there) if kept_is == "base" else (there, here)
            there_kl, back_kl = token_divergence(base[:, :vocabulary], tuned[:, :vocabulary])
            forward_kl[where], reverse_kl[where] = there_kl.cpu().numpy(), back_kl.cpu().numpy()
            cut_kept[where] = _mass_beyond(here, vocabulary)
            cut_other[where] = _mass_beyond(there, vocabulary)
    assert vocabulary is not None
    cut_base, cut_tuned = (cut_kept, cut_other) if kept_is == "base" else (cut_other, cut_kept)
    passage_of = np.repeat(np.arange(len(kept.passages)), np.diff(starts))
    return Divergence(forward_kl, reverse_kl, passage_of, vocabulary, cut_base, cut_tuned)


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


# --- Running models ------------------------------------------------------------------------------


def batches(passages: Sequence[Passage]) -> Iterator[list[int]]:
    """Indices of passages that may run together: one length and the same positions, so that
    nothing is padded. The same passages give the same batches, for every model."""

    def shape(row: int) -> tuple[int, tuple[int, ...]]:
        return len(passages[row].ids), passages[row].positions

    for (length, _), bucket in groupby(sorted(range(len(passages)), key=shape), key=shape):
        rows, step = list(bucket), max(1, BATCH_TOKENS // length)
        yield from (rows[start : start + step] for start in range(0, len(rows), step))


def run_each(
    anatomy: Anatomy, passages: Sequence[Passage]
) -> Iterator[tuple[list[int], Float[Tensor, "row readout vocab"]]]:
    """Which passages ran together, and their logits at the compared positions (raises
    MeasurementError where some are not finite)."""
    for rows in batches(passages):
        ids = torch.tensor([passages[row].ids for row in rows])
        with torch.no_grad():
            logits = forward(anatomy, ids, passages[rows[0]].positions)
        check_finite(logits, "a passage")
        yield rows, logits


def boundaries(passages: Sequence[Passage]) -> IntArray:
    """Where each passage's positions begin among all of them, and their number, [passage + 1]
    (raises MeasurementError where there are no passages)."""
    if not passages:
        raise MeasurementError("there are no passages to compare the models on: give some prompts")
    return np.cumsum([0, *(len(one.positions) for one in passages)])


def _room(shape: tuple[int, int], dtype: torch.dtype, file: Path | None, memory: int) -> Tensor:
    size = shape[0] * shape[1] * dtype.itemsize
    if file is not None:
        flat = torch.from_file(str(file), shared=True, size=shape[0] * shape[1], dtype=dtype)
        return flat.view(shape)
    if size > memory:
        raise MeasurementError(
            f"keeping {shape[0]} positions x {shape[1]} logits takes {size / 2**30:.1f} GiB, more "
            f"than the {memory / 2**30:.1f} GiB allowed: give file=, fewer prompts or positions, "
            "or a larger memory="
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


def _mass_beyond(logits: Float[Tensor, "position vocab"], vocabulary: int) -> FloatArray:
    """The probability on ids from `vocabulary` on, [position]."""
    if logits.shape[-1] == vocabulary:
        return np.zeros(len(logits))
    beyond = logits.double().log_softmax(-1)[:, vocabulary:].exp().sum(-1)
    found: FloatArray = beyond.cpu().numpy()
    return found


def by_passage(values: FloatArray, passage_of: IntArray) -> FloatArray:
    """Of the values of each passage's positions, float64 [passage]."""
    return np.bincount(passage_of, weights=values).astype(np.float64)
