"""Whether two tasks pull a model's weights against each other: the cosine of their loss gradients,
of all weights, matrix by matrix and head by head (the measures gradient.conflict*)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage
from forgetguard.measures.loss_gradients import Loss, differentiated
from forgetguard.measures.origin_parts import head_slices
from forgetguard.measures.origin_weights import Entries, Slices

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Cosines:
    """Cosines of two tasks' mean loss gradients, each with the influence of the first's prompts on
    it added, float64 [prompt]: their mean is the cosine, and their standard error its own, to
    first order (the infinitesimal jackknife: Efron 1982). `matrices` by name without `.weight`;
    `heads`: their slices of the query and output projections (where queries are fused with keys, of
    the output projection alone). What has no gradient in one of the tasks is left out."""

    whole: FloatArray
    matrices: Mapping[str, FloatArray]
    heads: Mapping[str, FloatArray]


def cosines(
    anatomy: Anatomy,
    prior: Sequence[Passage],
    new: Sequence[Passage],
    *,
    vocabulary: int | None = None,
) -> Cosines:
    """Two backward passes of each prompt of `prior`, one of each of `new`, one prompt at a time;
    beside the model four times its weights are held.

    Raises:
        MeasurementError: as `differentiated` and `Loss.gradient`; or a task has no gradient at all.
    """
    with differentiated(anatomy, (*prior, *new), copies=4, vocabulary=vocabulary) as loss:
        parts: dict[tuple[str, str], Slices] = {("", ""): dict.fromkeys(loss.weights, Entries())}
        for name, one in loss.weights.items():
            if one.dim() > 1:
                parts["matrix", name.removesuffix(".weight")] = {name: Entries()}
        for head, slices in head_slices(anatomy, loss.weights).items():
            parts["head", str(head)] = slices
        ours, theirs = _mean(loss, prior), _mean(loss, new)
        size = _products(loss, theirs, theirs, parts)
        rows = []
        for prompt in prior:
            own = loss.gradient(prompt)
            rows.append([_products(loss, own, one, parts) for one in (theirs, ours)])
    products = np.array(rows).transpose(1, 2, 0)  # [theirs, ours], [part], [prompt]
    found = {part: _influence(products[:, at], size[at]) for at, part in enumerate(parts)}
    whole = found["", ""]
    if whole is None:
        raise MeasurementError(
            "the loss has no gradient on one of the two tasks: its completions are certain "
            "already; give prompts that the model can still learn from"
        )
    return Cosines(whole, _named(found, "matrix"), _named(found, "head"))


def _named(found: Mapping[tuple[str, str], FloatArray | None], kind: str) -> dict[str, FloatArray]:
    return {
        name: values for (one, name), values in found.items() if one == kind and values is not None
    }


def _mean(loss: Loss, prompts: Sequence[Passage]) -> tuple[Tensor, ...]:
    total = loss.gradient(prompts[0])
    for prompt in prompts[1:]:
        for mine, one in zip(total, loss.gradient(prompt), strict=True):
            mine.add_(one)
    return tuple(one.div_(len(prompts)) for one in total)


def _products(
    loss: Loss,
    one: Sequence[Tensor],
    other: Sequence[Tensor],
    parts: Mapping[tuple[str, str], Slices],
) -> FloatArray:
    """The inner product of two gradients on each part's entries, [part]."""
    given = zip(loss.weights, one, other, strict=True)
    products = {name: mine.float() * theirs.float() for name, mine, theirs in given}
    sums = {name: float(values.double().sum()) for name, values in products.items()}

    def of(name: str, entries: Entries) -> float:
        if entries.rows is not None:
            return float(products[name][entries.rows].sum())
        if entries.columns is not None:
            return float(products[name][:, entries.columns].sum())
        return sums[name]

    return np.array([sum(of(*one) for one in slices.items()) for slices in parts.values()])


def _influence(products: FloatArray, size: float) -> FloatArray | None:
    """c plus the influence of each prompt on it, c = <g, h> / (|g| |h|) with g the mean of the
    gradients G_i: from [<G_i, h>, <G_i, g>] and |h|^2. None without a cosine."""
    along, within = products
    if not (size > 0 and within.mean() > 0):
        return None
    length = np.sqrt(within.mean() * size)
    cosine = along.mean() / length
    off = (along - along.mean()) / length - cosine * (within / within.mean() - 1)
    found: FloatArray = cosine + off
    return found
