"""The faithfulness curve: which sizes are read, and which circuit is the smallest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from forgetguard.anatomy.members import Head, Member
from forgetguard.discovery import curve as module
from forgetguard.discovery.curve import ALL_SIZES_UP_TO, Curve, faithfulness_curve, lower_bound
from forgetguard.measures.behaviour import Behaviour

CLEAN = Behaviour(np.ones(4), np.ones(4, bool), np.ones(4, bool), np.zeros(4, int))


def drawn(
    values: Sequence[float],
    faithful: float | None = None,
    seen: list[int] | None = None,
    at_least: int = 1,
    coarse: bool = False,
) -> Curve:
    """The curve of a ranking whose first k members have the faithfulness `values[k - 1]`, the same
    on all pairs: so its lower bounds are its values."""
    order = tuple(Head(number // 16, number % 16) for number in range(len(values)))

    def fake(
        anatomy: Any, capability: Any, circuits: Sequence[Sequence[Member]], universe: Any, **_: Any
    ) -> SimpleNamespace:
        assert tuple(universe) == order
        for circuit in circuits:
            assert tuple(circuit) == order[: len(circuit)], "the first k of the ranking"
        sizes = [len(circuit) for circuit in circuits]
        if seen is not None:
            seen.extend(sizes)
        return SimpleNamespace(
            values=np.array([values[size - 1] for size in sizes]),
            circuits=np.array([[values[size - 1]] * 4 for size in sizes]),
            nothing=np.zeros(4),
            whole=2.5,
            clean=CLEAN,
        )

    nothing: Any = None
    pairs: Any = SimpleNamespace(n_pairs=4)
    with patch.object(module, "faithfulness", fake):
        return faithfulness_curve(
            nothing,
            pairs,
            order,
            faithful=faithful,
            at_least=lambda whole: at_least,
            coarse=coarse,
        )


def first_reaching(values: Sequence[float], faithful: float) -> int | None:
    """By reading every size: from where on all are faithful."""
    below = [size for size, value in enumerate(values, 1) if value < faithful]
    size = 1 + max(below, default=0)
    return size if size <= len(values) else None


LEVELS = st.floats(-0.5, 1.5, allow_nan=False)
SMALL = st.lists(LEVELS, min_size=1, max_size=64)
LARGE = st.builds(
    lambda n, seed: np.random.default_rng(seed).uniform(-0.5, 1.5, n).tolist(),
    st.integers(ALL_SIZES_UP_TO + 1, 700),
    st.integers(0, 2**32 - 1),
)
ANY = SMALL | LARGE


@settings(max_examples=150, deadline=None)
@given(ANY.map(sorted), LEVELS)
def test_on_a_rising_curve_the_smallest_circuit_is_what_a_full_scan_finds(
    values: list[float], faithful: float
) -> None:
    seen: list[int] = []
    found = drawn(values, faithful, seen)
    assert found.smallest(faithful) == first_reaching(values, faithful)
    assert max(Counter(seen).values()) == 1, "no size is read twice"


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5000), st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.integers(0, 2**30)
)
def test_thousands_of_members_are_searched_in_few_steps(
    n: int, where: float, faithful: float, seed: int
) -> None:
    step = max(1, round(n * where))
    values = [0.0] * (step - 1) + [1.0] * (n - step + 1)
    seen: list[int] = []
    assert drawn(values, faithful, seen).smallest(faithful) == step
    assert max(Counter(seen).values()) == 1
    assert len(seen) <= max(ALL_SIZES_UP_TO, 16 + 4 * 8)


@settings(max_examples=100, deadline=None)
@given(ANY, LEVELS, st.integers(1, 64))
def test_on_any_curve_all_that_was_read_from_the_circuit_on_is_faithful(
    values: list[float], faithful: float, fewest: int
) -> None:
    """Where it falls and rises again a dip may lie between two sizes that are read."""
    fewest = min(fewest, len(values))
    found = drawn(values, faithful, at_least=fewest)
    size = found.smallest(faithful, at_least=fewest)
    assert found.faithfulness == tuple(values[at - 1] for at in found.sizes)
    if size is None:
        assert values[-1] < faithful
        return
    assert size >= fewest
    assert all(found.at(at) >= faithful for at in found.sizes if at >= size)
    assert size == fewest or values[size - 2] < faithful
    assert size == fewest or size - 1 in found.sizes
    if len(values) <= ALL_SIZES_UP_TO:
        assert size == max(fewest, first_reaching(values, faithful) or 0)


@pytest.mark.parametrize(
    ("step", "least"), [(3, 1), (10, 1), (29, 1), (30, 29), (48, 29), (100, 88), (270, 88)]
)
def test_a_coarse_cut_is_at_most_a_fifth_larger_and_reads_fewer_sizes(
    step: int, least: int
) -> None:
    """None far below one that does not suffice."""
    values = [0.0] * (step - 1) + [1.0] * (270 - step + 1)
    fine: list[int] = []
    coarse: list[int] = []
    assert drawn(values, 0.8, fine).smallest(0.8) == step
    size = drawn(values, 0.8, coarse, coarse=True).smallest(0.8)
    assert size is not None
    assert step <= size <= step + 0.2 * size
    assert len(coarse) < min(18, len(fine))
    assert min(coarse) == least


def test_a_curve_that_dips_is_cut_behind_the_dip() -> None:
    """ioi on SmolLM2 by size of effect: cut at 3 it left out a head worth a quarter."""
    values = [0.66, 0.66, 0.87, 0.84, 0.71, 0.73, 0.79, 0.84, 0.9, 1.0]
    found = drawn(values, 0.8)
    assert found.first(0.8) == 3
    assert found.smallest(0.8) == 8


def rejected(kept: Sequence[float], whole: Sequence[float], ratio: float) -> bool:
    """Whether a t test rejects mean(kept) <= ratio mean(whole), one-sided at 5 %."""
    differences = np.array(kept) - ratio * np.array(whole)
    return bool(stats.ttest_1samp(differences, 0.0, alternative="greater").pvalue < 0.05)


@pytest.mark.parametrize("seed", range(20))
def test_the_lower_bound_is_where_a_paired_t_test_begins_to_reject(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.normal(5, 2, 32)
    kept = rng.uniform(0.5, 1.2) * whole + rng.normal(0, 1, 32)
    low = lower_bound(kept, whole)
    assert low < kept.mean() / whole.mean()
    assert rejected(kept, whole, low - 1e-6)
    assert not rejected(kept, whole, low + 1e-6)


def test_the_bound_of_the_whole_is_one_and_of_no_effect_there_is_none() -> None:
    whole = np.random.default_rng(0).normal(5, 2, 32)
    assert lower_bound(whole, whole) == 1.0
    assert lower_bound(whole, whole - whole.mean()) == -np.inf


def test_a_size_with_a_wide_interval_does_not_suffice() -> None:
    """The mark is held by the bound, not by the value."""
    sure, unsure = (Curve((1,), (0.9,), (low,), 1, "zero", 1.0, 8) for low in (0.85, 0.7))
    assert (sure.smallest(0.8), unsure.smallest(0.8)) == (1, None)
    assert unsure.first(0.8) == 1


@pytest.mark.parametrize("n", [1, 2, 24, 63, ALL_SIZES_UP_TO])
def test_every_size_is_read_of_a_small_model(n: int) -> None:
    assert drawn([0.5] * n).sizes == tuple(range(1, n + 1))


@pytest.mark.parametrize("n", [ALL_SIZES_UP_TO + 1, 144, 576, 1024, 8192])
def test_a_large_model_is_read_at_a_geometric_grid_that_ends_in_all(n: int) -> None:
    sizes = drawn([0.5] * n).sizes
    assert sizes[0] == 1
    assert sizes[-1] == n
    assert len(sizes) <= 24
    ratios = [after / before for before, after in pairwise(sizes)]
    assert max(ratios) <= 2.0


def test_nothing_is_searched_where_no_faithfulness_is_asked_for() -> None:
    values = [0.0] * 80 + [1.0] * 20
    assert set(drawn(values).sizes) < set(drawn(values, 0.5).sizes)


def curve_of(function: Callable[[float], float], n: int) -> Curve:
    return drawn([function(size / n) for size in range(1, n + 1)])


@pytest.mark.parametrize(
    ("function", "cpr", "cmd"),
    [
        (lambda x: x, 1 / 2, 1 / 2),
        (lambda x: 2 * x, 1.0, 1 / 2),  # overshoots: |1 - f| is 1 to 0 and back to 1
        (lambda x: x**2, 1 / 3, 2 / 3),
        (lambda x: -x, -1 / 2, 3 / 2),
        (lambda x: 0.0 * x, 0.0, 1.0),
    ],
)
def test_areas_equal_their_closed_forms(
    function: Callable[[float], float], cpr: float, cmd: float
) -> None:
    found = curve_of(function, 64)
    assert found.cpr == pytest.approx(cpr, abs=1e-3)
    assert found.cmd == pytest.approx(cmd, abs=1e-3)


def test_a_step_at_the_first_of_n_members_misses_half_a_member() -> None:
    """f is 0 without members and 1 from the first on; the trapezoid between them is 1/(2n)."""
    for n in (1, 10, 64):
        found = drawn([1.0] * n)
        assert found.cpr == pytest.approx(1 - 1 / (2 * n))
        assert found.cmd == pytest.approx(1 / (2 * n))


@settings(max_examples=100, deadline=None)
@given(ANY)
def test_areas_add_up_where_faithfulness_stays_within_one(values: list[float]) -> None:
    found = drawn([min(value, 1.0) for value in values])
    assert found.cpr + found.cmd == pytest.approx(1.0)


def test_what_is_known_of_the_model_is_kept() -> None:
    found = drawn([0.25, 1.0])
    assert (found.members, found.ablation, found.whole, found.pairs) == (
        2,
        "counterfactual",
        2.5,
        4,
    )
    with pytest.raises(ValueError, match="not in tuple"):
        found.at(3)
