"""Growing a decoder layer's arguments to the rows of a wavefront."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetguard.patching.rows import Carrier, TokenDependentError, grow, keep_rows

ROWS = torch.tensor([1, 0, 2, 2, 1])
FEW = torch.zeros_like(ROWS)


@given(st.integers(1, 6), st.sets(st.integers(1, 6), max_size=3), st.booleans())
def test_no_other_axis_is_mistaken_for_the_batch(rows: int, axes: set[int], full: bool) -> None:
    carrier = Carrier.build(rows, axes, full=full)
    assert carrier.size >= 2
    assert carrier.size not in axes
    assert int(carrier.rows.max()) < rows
    if full:
        assert set(carrier.rows.tolist()) == set(range(rows))


def test_a_row_axis_grows_and_a_shared_one_does_not() -> None:
    carrier = Carrier.build(3, {4, 7}, full=False)
    mask = torch.randn(1, 1, 7, 7).expand(carrier.size, -1, -1, -1)
    rotary = (torch.randn(1, 7, 8), torch.randn(1, 7, 8))
    positions = torch.arange(7)
    grown = grow({"mask": mask, "rotary": rotary, "at": positions, "n": 3}, carrier, FEW, 4)
    assert grown["mask"].shape == (5, 1, 7, 7)
    assert torch.equal(grown["mask"][4], mask[0])
    assert grown["rotary"][0] is rotary[0]
    assert grown["at"] is positions
    assert grown["n"] == 3


def test_batch_times_heads_grows_by_blocks_of_heads() -> None:
    carrier = Carrier.build(3, {4, 7}, full=False)
    slopes = torch.randn(4, 1, 7)
    alibi = slopes.repeat(carrier.size, 1, 1)
    assert torch.equal(grow(alibi, carrier, FEW, 4), slopes.repeat(5, 1, 1))


def test_what_depends_on_the_tokens_needs_the_full_carrier() -> None:
    few, full = Carrier.build(3, {4, 7}, full=False), Carrier.build(3, {4, 7}, full=True)
    with pytest.raises(TokenDependentError):
        grow(torch.randn(few.size, 7, 8), few, FEW, 4)
    per_row = torch.randn(full.size, 7, 8)
    assert torch.equal(grow(per_row, full, ROWS, 4), per_row[ROWS])


def test_keeping_rows_leaves_other_axes_alone() -> None:
    hidden, rotary = torch.randn(5, 7, 8), torch.randn(1, 7, 8)
    kept = keep_rows((hidden, {"rotary": rotary, "pair": [hidden, None]}), 5, 2)
    assert torch.equal(kept[0], hidden[:2])
    assert kept[1]["rotary"] is rotary
    assert torch.equal(kept[1]["pair"][0], hidden[:2])
