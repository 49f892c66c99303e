"""Gives every argument of a decoder layer the number of rows that the wavefront has there."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Carrier:
    """The rows that a wavefront's forward pass is called with, before its own rows take over.

    `rows` are the clean rows it consists of. Rows of one length share masks, positions and biases,
    so few of them stand for all; where a model hands its layers something that depends on the
    tokens, the carrier holds every clean row (`full`).
    """

    rows: Int[Tensor, "carrier"]
    full: bool

    @property
    def size(self) -> int:
        return len(self.rows)

    @classmethod
    def build(cls, n_rows: int, axes: Collection[int], *, full: bool) -> Carrier:
        """A carrier of at least two rows, and of none of the sizes in `axes` (positions, heads): a
        tensor whose first axis has this size is therefore per row."""
        rows = list(range(n_rows if full else min(n_rows, 2)))
        while len(rows) < 2 or len(rows) in axes:
            rows.append(0)
        return cls(torch.tensor(rows), full)


class TokenDependentError(Exception):
    """A layer's argument differs between carrier rows: only the full carrier can be grown."""


def grow(value: Any, carrier: Carrier, rows: Int[Tensor, "row"], n_heads: int) -> Any:
    """`value` with one entry for each of `rows` (indices of clean rows) along every batch axis.

    Tensors whose first axis is the carrier's size, or that times `n_heads` (Bloom's alibi,
    [batch * heads, 1, position]), are grown, in containers too; the rest is returned as it is.
    """
    return _each(value, lambda one: _grow_tensor(one, carrier, rows, n_heads))


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it changed, in tuples, lists and dicts too."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_each(item, change) for item in value)
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    return value


def _grow_tensor(value: Tensor, carrier: Carrier, rows: Tensor, n_heads: int) -> Tensor:
    if value.dim() == 0 or value.shape[0] == 1:
        return value
    if value.shape[0] == carrier.size:
        per_row = value
    elif value.dim() >= 2 and value.shape[0] == carrier.size * n_heads:
        per_row = value.reshape(carrier.size, n_heads, *value.shape[1:])
    else:
        return value
    if carrier.full:
        grown = per_row.index_select(0, rows.to(per_row.device))
    else:
        if not all(torch.equal(per_row[0], other) for other in per_row[1:]):
            raise TokenDependentError
        grown = per_row[:1].expand(len(rows), *per_row.shape[1:])
    return grown if per_row is value else grown.flatten(0, 1)


def keep_rows(value: Any, n_rows: int, kept: int) -> Any:
    """The first `kept` of `n_rows` rows of every tensor that has that many, containers included."""
    return _each(value, lambda one: one[:kept] if one.dim() and len(one) == n_rows else one)
