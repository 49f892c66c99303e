"""KL between the distributions of whole completions, from samples of one of the models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import (
    FloatArray,
    IntArray,
    Passage,
    boundaries,
    by_passage,
    common_ids,
    prompt_batches,
)
from forgetguard.patching.forward import check_finite, forward

Side = Literal["base", "tuned"]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The log-probability, in nats, that a model gives each token of completions, float64
    [position], and which passage it is of, int64 [position]."""

    log_probability: FloatArray
    passage: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class SampledDivergence:
    """Estimates of KL between distributions of whole completions, one a sampled completion, in nats
    a completion (not a token). Their mean over completions is the estimate.

    Attributes:
        direction: `forward`: KL(base || tuned), from completions drawn from the base; `reverse`:
            KL(tuned || base), from completions drawn from the tuned model.
        log_ratio: sum over the completion's tokens of log p - log q, where p drew them. Unbiased;
            single values may be negative. [completion]
        non_negative: the sum of q/p - 1 - log q/p, token by token (Schulman, "Approximating KL
            divergence", 2020; the KL that GRPO trainers log). Unbiased too, since q/p - 1 is 0 on
            average over p, and never negative. Of smaller variance where the models are close, of
            larger where they are not (heavy tails where q says what p hardly does). [completion]
        tokens: of each completion, int64 [completion].
    """

    direction: Literal["forward", "reverse"]
    log_ratio: FloatArray
    non_negative: FloatArray
    tokens: IntArray


def run_each(
    anatomy: Anatomy, passages: Sequence[Passage]
) -> Iterator[tuple[Sequence[int], Float[Tensor, "row readout vocab"]]]:
    """Which passages ran together, and their logits at the compared positions (raises
    MeasurementError where some are not finite)."""
    for rows, ids, positions in prompt_batches(passages):
        with torch.no_grad():
            logits = forward(anatomy, ids, positions)
        check_finite(logits, "a passage")
        yield rows, logits


def score_completions(
    anatomy: Anatomy, passages: Sequence[Passage], *, vocabulary: int | None = None
) -> Scores:
    """Teacher-force completions through one model. Keeps one number a token.

    `vocabulary` cuts the logits to that many ids and renormalises; give both models the same.

    Raises:
        MeasurementError: a passage has no completion, a completion holds an id beyond the
            vocabulary, logits that are not finite.
    """
    starts = boundaries(passages)
    result = np.empty(int(starts[-1]))
    for rows, logits in run_each(anatomy, passages):
        ids = common_ids(vocabulary, logits.shape[-1], logits.shape[-1])
        for row, found in zip(rows, logits, strict=True):
            targets = _targets(passages[row], row, ids).to(found.device)
            scored = found[:, :ids].double().log_softmax(-1).gather(1, targets[:, None])
            result[starts[row] : starts[row + 1]] = scored[:, 0].cpu().numpy()
    return Scores(result, np.repeat(np.arange(len(passages)), np.diff(starts)))


def sampled_divergence(base: Scores, tuned: Scores, *, drawn_from: Side) -> SampledDivergence:
    """Estimate the KL between the two models' distributions of completions.

    The completions must be plain samples of the model that `drawn_from` names (temperature 1, no
    top-k or top-p), with the end-of-text token where it was drawn. Training labels are samples of
    neither model. Several completions of one prompt are to be resampled as one. On the same
    passages, the sum over a completion of `Divergence.forward` (drawn from the base) or `.reverse`
    (drawn from the tuned) estimates the same with less noise: there the expectation over each next
    token is taken exactly.

    Raises:
        MeasurementError: the two were not scored on the same passages.
    """
    if not np.array_equal(base.passage, tuned.passage):
        raise MeasurementError(
            f"base was scored on {len(base.passage)} tokens, tuned on {len(tuned.passage)} of "
            "other passages: score both on the same completions"
        )
    log_ratio = base.log_probability - tuned.log_probability
    if drawn_from == "tuned":
        log_ratio = -log_ratio
    return SampledDivergence(
        direction="forward" if drawn_from == "base" else "reverse",
        log_ratio=by_passage(log_ratio, base.passage),
        non_negative=by_passage(np.expm1(-log_ratio) + log_ratio, base.passage),
        tokens=np.bincount(base.passage),
    )


def _targets(one: Passage, number: int, vocabulary: int) -> Tensor:
    if len(one.targets) != len(one.positions):
        raise MeasurementError(
            f"passage {number} has no completion to score: build it with passage(prompt, "
            "completion)"
        )
    if max(one.targets) >= vocabulary:
        raise MeasurementError(
            f"the completion of passage {number} holds id {max(one.targets)}, beyond the "
            f"{vocabulary} ids that are compared: it cannot come from a model of that vocabulary; "
            "leave such completions out, and count them"
        )
    return torch.tensor(one.targets)
