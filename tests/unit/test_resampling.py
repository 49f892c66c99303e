"""What every interval over prompt pairs rests on: seeds, templates, draws."""

from __future__ import annotations

import numpy as np
import pytest

from forgetguard.errors import MeasurementError
from forgetguard.gate.resampling import (
    MOST_RESAMPLES,
    cluster_codes,
    cluster_sums,
    derive_seed,
    enough_resamples,
    weights_in_chunks,
)


def test_seeds_come_from_names_and_not_from_their_concatenation() -> None:
    seeds = {derive_seed(0, *names) for names in [("ab",), ("a", "b"), ("b",), ()]}
    assert len(seeds) == 4
    assert derive_seed(1, "ab") not in seeds


def test_one_template_alone_makes_no_clusters() -> None:
    assert cluster_codes(["t"] * 64) is None
    for count in (2, 8):
        codes = cluster_codes([f"t{index % count}" for index in range(64)])
        assert codes is not None
        assert len(set(codes.tolist())) == count
    loose = cluster_codes(["", "", "a", "a", "", "", "", "", "", ""])
    assert loose is not None
    assert loose[2] == loose[3]
    assert len(set(loose.tolist())) == 9


def test_every_draw_holds_as_many_units_as_there_are_and_all_alike_often() -> None:
    blocks = list(weights_in_chunks(7, 4000, seed=3))
    weights = np.concatenate([block for _, block in blocks], axis=1)
    assert weights.shape == (7, 4000)
    assert (weights.sum(axis=0) == 7).all()
    # The mean of 4000 binomial(7, 1/7): its standard deviation is 0.015.
    assert weights.mean(axis=1) == pytest.approx([1.0] * 7, abs=0.07)


def test_draws_in_chunks_cover_all_and_begin_anew_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forgetguard.gate.resampling._CHUNK", 500)
    blocks = list(weights_in_chunks(5, 250, seed=1))
    covered = [place for where, _ in blocks for place in range(where.start, where.stop)]
    assert covered == list(range(250))
    assert len(blocks) == 3
    assert not np.array_equal(blocks[0][1], blocks[1][1])


def test_small_levels_get_more_draws_up_to_a_bound() -> None:
    assert enough_resamples(9999, 0.05) == 9999
    assert enough_resamples(9999, 0.0005) == 19_999
    assert enough_resamples(9999, 1e-9) == MOST_RESAMPLES
    assert enough_resamples(9999, 0.0) == 9999


def test_clusters_enter_with_their_sums() -> None:
    rows = np.arange(12.0).reshape(2, 6)
    sums, counts = cluster_sums(rows, np.ones_like(rows), np.array([4, 4, 9, 9, 9, 1]))
    assert sums.tolist() == [[5.0, 1.0, 9.0], [11.0, 13.0, 27.0]]
    assert counts.tolist() == [[1.0, 2.0, 3.0]] * 2
    for wrong in (np.zeros(6, dtype=int), np.zeros(5, dtype=int)):
        with pytest.raises(MeasurementError):
            cluster_sums(rows, rows, wrong)
