"""Pairs of one length, as tensors: the batches that models run on, without padding.

Padding on the left changes the logits of models with learned positions; so rows are bucketed by
length instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from forgetguard.capabilities.encoding import EncodedPair

Logits: TypeAlias = Float[Tensor, "row readout vocab"]
Targets: TypeAlias = Int[Tensor, "row readout"]

# Rows of a batch are cut at this many tokens, so that what a clean pass keeps stays small beside a
# model. Base and tuned run the very same batches: equal weights then give equal bits.
BATCH_TOKENS = 4096
_FEWEST_ROWS = 8
PAD = -1  # where a row has fewer answers than another: no token's id


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs whose prompts have one length and whose answers have one length.

    pairs: index of each row's pair.
    clean, counterfactual: prompt and answer but for the answer's last token, [row, pos].
    positions: where the answer's tokens are predicted.
    answer: [row, readout]; distractor: [row, readout], or None where pairs have none.
    start: clean and counterfactual agree, in every row, before this position.
    answers, distractors: every valid and every invalid answer, [row, option], the pair's own first,
        padded with PAD; None where no pair of the capability has further ones.
    """

    pairs: tuple[int, ...]
    clean: Int[Tensor, "row pos"]
    counterfactual: Int[Tensor, "row pos"]
    positions: tuple[int, ...]
    answer: Int[Tensor, "row readout"]
    distractor: Int[Tensor, "row readout"] | None
    start: int
    answers: Int[Tensor, "row option"] | None = None
    distractors: Int[Tensor, "row option"] | None = None


def make_batches(pairs: Sequence[EncodedPair], tokens: int = BATCH_TOKENS) -> tuple[Batch, ...]:
    """Bucket pairs by prompt and answer length; within a bucket, pairs that share a longer prefix
    of positions go together, since what is shared need not be recomputed."""

    def shape(i: int) -> tuple[int, int, int]:
        return len(pairs[i].clean), len(pairs[i].answer), len(pairs[i].distractor)

    # One width for all, so that batches can be joined and cut again.
    valid, invalid = (
        max((len(further) for further in sets), default=0)
        for sets in ([one.answers for one in pairs], [one.distractors for one in pairs])
    )
    batches = []
    for (length, answer, _), bucket in groupby(sorted(range(len(pairs)), key=shape), key=shape):
        rows = max(1, tokens // (length + answer - 1))
        for group in _by_start(pairs, list(bucket)):
            batches += [
                batch_of(pairs, group[i : i + rows], valid, invalid)
                for i in range(0, len(group), rows)
            ]
    return tuple(batches)


def _by_start(pairs: Sequence[EncodedPair], bucket: list[int]) -> list[list[int]]:
    """Split a bucket by the first differing position, never into groups of a few rows."""
    groups: list[list[int]] = []
    ordered = sorted(bucket, key=lambda i: (pairs[i].start, i))
    for _, same in groupby(ordered, key=lambda i: pairs[i].start):
        if groups and len(groups[-1]) < _FEWEST_ROWS:
            groups[-1].extend(same)
        else:
            groups.append(list(same))
    if len(groups) > 1 and len(groups[-1]) < _FEWEST_ROWS:
        last = groups.pop()
        groups[-1].extend(last)
    return groups


def batch_of(pairs: Sequence[EncodedPair], rows: list[int], valid: int, invalid: int) -> Batch:
    """The pairs of these numbers, all of one shape, with room for so many further answers."""
    chosen = [pairs[i] for i in rows]
    prompt, answer = len(chosen[0].clean), len(chosen[0].answer)
    distractors = [pair.distractor for pair in chosen]
    return Batch(
        pairs=tuple(rows),
        clean=torch.tensor([pair.clean + pair.answer[:-1] for pair in chosen]),
        counterfactual=torch.tensor([pair.counterfactual + pair.answer[:-1] for pair in chosen]),
        positions=tuple(range(prompt - 1, prompt - 1 + answer)),
        answer=torch.tensor([pair.answer for pair in chosen]),
        distractor=torch.tensor(distractors) if distractors[0] else None,
        start=min(pair.start for pair in chosen),
        answers=_options([pair.answer + pair.answers for pair in chosen], valid),
        distractors=_options([pair.distractor + pair.distractors for pair in chosen], invalid),
    )


def _options(rows: Sequence[tuple[int, ...]], further: int) -> Int[Tensor, "row option"] | None:
    if not further:
        return None
    return torch.tensor([row + (PAD,) * (1 + further - len(row)) for row in rows])
