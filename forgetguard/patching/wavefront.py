"""The wavefront: many patched runs of one model in one forward pass.

At each layer the batch grows by the runs whose first patched head lies there; they start from the
clean run's residual stream, so no run recomputes what lies before its first intervention, and every
layer's weights are read once for all runs. Cost, in token-layers, is the sum over runs and rows of
(layers from the first patched one) x (positions from the first differing one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from forgetguard.patching.budget import default_budget, halving
from forgetguard.patching.clean import CleanPass
from forgetguard.patching.forward import check_finite, full_float32
from forgetguard.patching.prefix import Prefix, clean_prefix
from forgetguard.patching.rows import TokenDependentError
from forgetguard.patching.sources import Run, unchanged_rows
from forgetguard.patching.wave import Block, Wave

Reduce = Callable[
    [Float[Tensor, "row readout vocab"], Int[Tensor, "row"]], Shaped[Tensor, "row ..."]
]


_Job = tuple[int, int]  # one run in one row, by their places


def wavefront(
    clean: CleanPass,
    runs: Sequence[Run],
    reduce: Reduce,
    *,
    budget: int | None = None,
    entered: dict[int, Float[Tensor, "row pos d_model"]] | None = None,
) -> Shaped[Tensor, "run row ..."]:
    """Patch every run into every row and read each patched run.

    Args:
        clean: the clean run; it must hold every member of `runs`.
        runs: what to patch. Runs are independent of each other.
        reduce: from float32 logits [row, readout, vocab] and the indices of the clean rows to one
            entry a row. Called on a part of the rows at a time, never on all logits at once.
        budget: tokens held at once, by default what the device has room for. Results do not depend
            on it beyond rounding. Halved when memory runs out.
        entered: is given what enters each layer in the first run, which begins before or where any
            other does, from its source's start on: other runs may begin there (`Run.begun`).

    Returns:
        `reduce`'s entries, [run, row, ...]. A run that changes nothing in a row (the source's
        contributions are bitwise the clean ones) has exactly the clean run's entry.

    Raises:
        MeasurementError: logits are not finite, or memory does not suffice for one row.
    """
    n_rows = len(clean.ids)
    clean_values = reduce(clean.logits.float(), torch.arange(n_rows))
    slots: list[Tensor] = [clean_values[row] for _ in runs for row in range(n_rows)]
    by_start: dict[int, list[_Job]] = {}
    for number, run in enumerate(runs):
        start = run.source.start
        for row in _changed_rows(clean, run):
            by_start.setdefault(start, []).append((number, row))
    with full_float32():
        for start, jobs in sorted(by_start.items()):
            for chunk, entries in _waves(clean, runs, jobs, start, reduce, budget, entered):
                for (number, row), value in zip(chunk, entries, strict=True):
                    slots[number * n_rows + row] = value
    values = torch.stack(slots)
    return values.reshape(len(runs), n_rows, *values.shape[1:])


def _changed_rows(clean: CleanPass, run: Run) -> list[int]:
    """The rows in which `run` changes anything."""
    changed = torch.zeros(len(clean.ids), dtype=torch.bool)
    for member in run.members:
        foreign = None if run.source.weights is None else run.source.weights.get(member)
        own, z = clean.own.get(member), clean.z[member]
        source_z = run.source.z[member].to(z.device)
        moved = None if foreign is None else foreign.to(z.device)
        changed |= ~unchanged_rows(z, source_z, own, moved)
        if changed.all():
            break
    return [int(row) for row in changed.nonzero().flatten()]


def _waves(
    clean: CleanPass,
    runs: Sequence[Run],
    jobs: list[_Job],
    start: int,
    reduce: Reduce,
    budget: int | None,
    entered: dict[int, Tensor] | None,
) -> Iterator[tuple[list[_Job], Tensor]]:
    """Cut `jobs` into waves that fit the budget, deepest start last, and run them."""
    prefix = clean_prefix(clean, start) if start > 0 else None
    if prefix is None:
        start = 0
    n_positions = clean.ids.shape[1] - start
    tokens = budget or default_budget(clean.anatomy, n_positions, len(clean.positions))
    most = max(1, tokens // n_positions)
    size = math.ceil(len(jobs) / math.ceil(len(jobs) / most))  # waves of equal size
    pending = sorted(jobs, key=lambda job: (runs[job[0]].first_layer, *job))

    def one_wave(rows: int) -> tuple[list[_Job], Tensor]:
        chunk = pending[:rows]
        blocks = _blocks(runs, chunk)
        index = torch.cat([block.rows for block in blocks])
        logits = _wave(clean, blocks, index, start, prefix, entered).float()
        check_finite(logits, "a patched run")
        return chunk, reduce(logits, index)

    while pending:
        size = min(size, len(pending))
        chunk, values = halving(one_wave, size)
        size = len(chunk)  # what fitted once is what the rest is cut into
        yield chunk, values
        pending = pending[size:]


def _blocks(runs: Sequence[Run], jobs: list[_Job]) -> list[Block]:
    rows: dict[int, list[int]] = {}
    for run, row in jobs:
        rows.setdefault(run, []).append(row)
    blocks, first = [], 0
    for run, indices in rows.items():
        blocks.append(Block(runs[run], run, first, torch.tensor(indices)))
        first += len(indices)
    return blocks


def _wave(
    clean: CleanPass,
    blocks: list[Block],
    index: Int[Tensor, "row"],
    start: int,
    prefix: Prefix | None,
    entered: dict[int, Tensor] | None,
) -> Float[Tensor, "row readout vocab"]:
    try:
        return Wave(clean, blocks, index, start, prefix, entered, full_carrier=False).logits()
    except TokenDependentError:
        return Wave(clean, blocks, index, start, prefix, entered, full_carrier=True).logits()
