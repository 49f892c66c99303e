"""Whether two tasks pull a model's weights against each other: the cosine of their loss gradients,
of all weights, matrix by matrix and head by head (the measures gradient.conflict*)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage
from forgetguard.measures.loss_gradients import Loss, differentiated, dot
from forgetguard.measures.origin_parts import head_slices
from forgetguard.measures.origin_weights import Entries, Slices
from forgetguard.measures.samples import FloatArray


class Cosine(NamedTuple):
    """Of two tasks' mean loss gradients on some weights, by the first's prompts, float64 [prompt].

    values: the cosine plus each prompt's influence on it: their mean is the cosine, and their
    standard error its own, to first order (the infinitesimal jackknife: Efron 1982).
    shares: what each prompt makes of the squared length of the first's mean gradient; their sum is
    1, and a prompt that pulls against the others has less than 0.
    """

    values: FloatArray
    shares: FloatArray


Part = tuple[str, str]  # ("", "") for all weights, ("matrix", name), ("head", name)


def cosines(
    anatomy: Anatomy,
    prior: Sequence[Passage],
    new: Sequence[Passage],
    *,
    vocabulary: int | None = None,
) -> dict[Part, Cosine]:
    """Of all weights, of each matrix (by name without `.weight`) and of each head: its slices of
    the query and output projections (where queries are fused with keys, of the output projection
    alone). What has no gradient in one of the tasks is left out.

    Two backward passes of each prompt of `prior`, one of each of `new`, one prompt at a time;
    beside the model four times its weights are held.

    Raises:
        MeasurementError: as `differentiated` and `Loss.gradient`; or a task has no gradient at all.
    """
    with differentiated(anatomy, (*prior, *new), copies=4, vocabulary=vocabulary) as loss:
        parts = parts_of(anatomy, loss)
        ours, theirs = mean_gradient(loss, prior), mean_gradient(loss, new)
        size = products(loss, theirs, theirs, parts)
        rows = []
        for prompt in prior:
            own = loss.gradient(prompt)
            rows.append([products(loss, own, one, parts) for one in (theirs, ours)])
    each = np.array(rows).transpose(1, 2, 0)  # [theirs, ours], [part], [prompt]
    found = {part: influence(each[:, at], size[at]) for at, part in enumerate(parts)}
    able = {part: one for part, one in found.items() if one is not None}
    if ("", "") not in able:
        raise MeasurementError(
            "the loss has no gradient on one of the two tasks: its completions are certain "
            "already; give prompts that the model can still learn from"
        )
    return able


def parts_of(anatomy: Anatomy, loss: Loss) -> dict[Part, Slices]:
    """The entries of every part."""
    parts: dict[Part, Slices] = {("", ""): dict.fromkeys(loss.weights, Entries())}
    for name, one in loss.weights.items():
        if one.dim() > 1:
            parts["matrix", name.removesuffix(".weight")] = {name: Entries()}
    for head, slices in head_slices(anatomy, loss.weights).items():
        parts["head", str(head)] = slices
    return parts


def mean_gradient(loss: Loss, prompts: Sequence[Passage]) -> tuple[Tensor, ...]:
    """Of the prompts' mean loss."""
    total = loss.gradient(prompts[0])
    for prompt in prompts[1:]:
        for mine, one in zip(total, loss.gradient(prompt), strict=True):
            mine.add_(one)
    return tuple(one.div_(len(prompts)) for one in total)


def products(
    loss: Loss,
    one: Sequence[Tensor],
    other: Sequence[Tensor],
    parts: Mapping[Part, Slices],
) -> FloatArray:
    """The inner product of two gradients on each part's entries, [part]."""
    given = dict(zip(loss.weights, zip(one, other, strict=True), strict=True))
    sums = {name: dot(*(each.flatten().float() for each in both)) for name, both in given.items()}

    def of(name: str, entries: Entries) -> float:
        if entries.rows is None and entries.columns is None:
            return sums[name]
        where = entries.rows if entries.rows is not None else (slice(None), entries.columns)
        mine, theirs = (each[where].float() for each in given[name])
        return float((mine * theirs).sum())

    return np.array([sum(of(*one) for one in slices.items()) for slices in parts.values()])


def influence(each: FloatArray, size: float) -> Cosine | None:
    """c = <g, h> / (|g| |h|) with g the mean of the gradients G_i: from [<G_i, h>, <G_i, g>] and
    |h|^2. None without a cosine."""
    along, within = each
    if not (size > 0 and within.mean() > 0):
        return None
    length = np.sqrt(within.mean() * size)
    cosine = along.mean() / length
    off = (along - along.mean()) / length - cosine * (within / within.mean() - 1)
    return Cosine(cosine + off, within / within.sum())
