"""Which head does the work of which: on what heads write, as plain arrays."""

from __future__ import annotations

import numpy as np
import pytest

from forgetguard.measures.matching import SAME_WORK, _moved

RNG = np.random.default_rng(0)
WRITTEN = RNG.standard_normal((6, 40)) * np.array([1, 2, 3, 0.1, 5, 1])[:, None]


def test_a_permutation_is_found_exactly() -> None:
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(6)
        moved = {int(head): place for place, head in enumerate(order) if head != place}
        assert _moved(WRITTEN, WRITTEN[order]) == moved


@pytest.mark.parametrize("change", [1.0, 1.05, 2.0, 0.0])
def test_heads_that_changed_where_they_are_keep_their_names(change: float) -> None:
    assert _moved(WRITTEN, change * WRITTEN) == {}
    one = WRITTEN.copy()
    one[2] = change * one[4] + RNG.standard_normal(40)
    assert _moved(WRITTEN, one) == {}


def test_a_silent_head_is_what_no_other_is() -> None:
    order = [1, 2, 0, 4, 5, 3]
    theirs = WRITTEN[order]
    theirs[1] = 0.0  # the work of head 2, which went to place 1
    assert _moved(WRITTEN, theirs) == {1: 0, 2: 1, 0: 2, 4: 3, 5: 4, 3: 5}


def test_a_head_that_is_silent_in_the_base_is_no_number_too_large() -> None:
    base = WRITTEN.copy()
    base[2] = 0.0
    assert _moved(base, WRITTEN) == {}
    assert _moved(base, WRITTEN[[1, 0, 2, 3, 4, 5]]) == {0: 1, 1: 0}


def test_heads_that_are_alike_keep_their_places() -> None:
    alike = WRITTEN.copy()
    alike[5] = alike[0]
    assert _moved(alike, alike) == {}
    assert _moved(alike, alike[[0, 2, 1, 3, 4, 5]]) == {1: 2, 2: 1}


def test_a_head_that_takes_the_place_of_another_leaves_that_ones_work_undone() -> None:
    theirs = WRITTEN.copy()
    theirs[3] = WRITTEN[1]  # and 1 is still there
    assert _moved(WRITTEN, theirs) == {}


def test_a_head_is_matched_within_the_tolerance_only() -> None:
    order = [1, 0, 2, 3, 4, 5]
    noise = RNG.standard_normal(WRITTEN.shape)
    sizes, own = (np.linalg.norm(one, axis=1, keepdims=True) for one in (WRITTEN, noise))
    noise *= sizes / own
    for share, found in ((0.9, {0: 1, 1: 0}), (1.1, {})):
        assert _moved(WRITTEN, (WRITTEN + share * SAME_WORK * noise)[order]) == found
