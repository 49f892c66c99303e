"""Properties of calibration: matched norms, limits from draws, doses, draws of pairs."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from known_samples import samples

from examples.studies.sensitivity.detection import POWER, detected, redrawn, saturates
from examples.studies.sensitivity.planting import EDITS, OutputSlice, edit
from forgetguard.calibration.copies import Moved, matched, perturbation
from forgetguard.calibration.limits import STEP, fewest_draws, stated
from forgetguard.capabilities.pairs import PromptPair

SHAPES = st.sampled_from([(), (7,), (5, 3), (12, 8), (4, 3, 2)])
NORMS = st.floats(1e-6, 1e3)
FEW = settings(max_examples=60, deadline=None)


# --- matched norms --------------------------------------------------------------------------------


@FEW
@given(shape=SHAPES, norm=NORMS, seed=st.integers(0, 10_000))
def test_a_direction_is_matched_to_the_norm_exactly(
    shape: tuple[int, ...], norm: float, seed: int
) -> None:
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = matched(direction, norm)
    assert found.dtype is torch.float64
    assert math.isclose(float(found.square().sum().sqrt()), norm, rel_tol=1e-12)
    assert torch.equal(torch.sign(found), torch.sign(direction.double()))


@FEW
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    norms=st.lists(NORMS, min_size=4, max_size=4),
    half=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_every_matrix_moves_by_its_own_norm_as_stored(
    shapes: list[tuple[int, ...]], norms: list[float], half: bool, seed: int
) -> None:
    """Checked on what would be written, against the norm by plain sums. What is stored is float32:
    it may miss by its rounding of weight and change, and by no more."""
    moved = {f"w{i}": Moved(norms[i], shape) for i, shape in enumerate(shapes)}
    changes = perturbation(moved, seed)
    for number, (name, one) in enumerate(moved.items()):
        dtype = torch.bfloat16 if half else torch.float32
        before = torch.randn(one.shape, generator=torch.Generator().manual_seed(number)).to(dtype)
        kept = before.clone()
        after = changes[name](before)
        assert torch.equal(before, kept), "the tensor itself is not touched"
        assert after.dtype is torch.float32
        difference = (after.double() - before.double()).flatten().tolist()
        found = math.sqrt(math.fsum(value * value for value in difference))
        size = float(before.double().norm()) + one.norm
        assert abs(found - one.norm) <= 2**-23 * size


@FEW
@given(rows=st.integers(1, 6), more=st.integers(1, 4), norm=NORMS)
def test_rows_that_tuning_did_not_have_are_left_alone(rows: int, more: int, norm: float) -> None:
    change = perturbation({"w": Moved(norm, (rows, 3))}, 0)["w"]
    before = torch.ones(rows + more, 3)
    after = change(before)
    assert torch.equal(after[rows:], before[rows:])
    assert not torch.equal(after[:rows], before[:rows])


def test_seeds_and_tensors_have_draws_of_their_own() -> None:
    moved = {name: Moved(1.0, (4, 4)) for name in ("a", "b")}
    zero = torch.zeros(4, 4)
    drawn = [perturbation(moved, seed)[name](zero) for seed in (0, 1) for name in moved]
    again = perturbation(moved, 0)["a"](zero)
    assert torch.equal(again, drawn[0])
    assert all(not torch.equal(one, other) for i, one in enumerate(drawn) for other in drawn[:i])


# --- plants ---------------------------------------------------------------------------------------


@FEW
@given(
    plant=st.sampled_from(sorted(EDITS)),
    dose=st.floats(0, 1),
    first=st.integers(0, 2),
    transposed=st.booleans(),
    seed=st.integers(0, 100),
)
def test_a_plant_changes_its_slice_by_the_dose_and_nothing_else(
    plant: str, dose: float, first: int, transposed: bool, seed: int
) -> None:
    weight = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed))
    where = OutputSlice("w", slice(4 * first, 4 * first + 4), transposed)
    after = edit(where, plant, dose, seed)["w"](weight)
    mask = torch.zeros(12, 12, dtype=torch.bool)
    where.of(mask)[:] = True
    assert torch.equal(after[~mask], weight[~mask])
    change = (where.of(after) - where.of(weight)).double()
    size = float(where.of(weight).double().norm())
    assert math.isclose(float(change.norm()), dose * size, rel_tol=1e-4, abs_tol=1e-5)
    if plant == "rank-one" and dose > 0.01:
        values = torch.linalg.svdvals(change)
        assert values[1] < 1e-3 * values[0]
    if plant == "scale":
        assert torch.allclose(where.of(after), where.of(weight) * (1 - dose), atol=1e-6)


@FEW
@given(plant=st.sampled_from(sorted(EDITS)), small=st.floats(0.05, 0.5))
def test_doses_of_one_seed_lie_on_a_ray(plant: str, small: float) -> None:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    where = OutputSlice("w", slice(0, 4))
    less, more = (
        edit(where, plant, dose, 3)["w"](weight).double() - weight for dose in (small, 2 * small)
    )
    assert torch.allclose(2 * less, more, atol=1e-5)


# --- limits from draws ----------------------------------------------------------------------------


@FEW
@given(
    draws=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    alarm=st.sampled_from([0.01, 0.05, 0.1, 0.25]),
)
def test_the_stated_limit_holds_no_more_than_the_rate_of_exchangeable_draws(
    draws: list[float], alarm: float
) -> None:
    """Leave each of D + 1 exchangeable draws out in turn: the share beyond the limit of the others
    is the rate at which the next one is held, and it is within what is stated."""
    assume(len(draws) >= 2)
    rest = len(draws) - 1
    held = 0
    for place, left_out in enumerate(draws):
        found = stated([*draws[:place], *draws[place + 1 :]], alarm)
        assert found.draws == rest
        assert found.as_asked == (rest >= fewest_draws(alarm))
        assert found.rate == (alarm if found.as_asked else 1 / (rest + 1))
        held += left_out > found.limit + 1e-12
    assert held <= math.floor(found.rate * len(draws) + 1e-9)


@FEW
@given(draws=st.lists(st.floats(0, 3), min_size=1, max_size=40), more=st.floats(0, 1))
def test_a_limit_is_a_hundredth_and_grows_with_what_is_read(
    draws: list[float], more: float
) -> None:
    less, larger = stated(draws), stated([one + more for one in draws])
    assert STEP <= less.limit <= larger.limit
    assert math.isclose(less.limit / STEP, round(less.limit / STEP), abs_tol=1e-6)
    assert less.limit < max(draws) + STEP + 1e-9 or less.limit == STEP


# --- detection ------------------------------------------------------------------------------------

SHARES = st.lists(st.sampled_from([0.0, 0.2, 0.79, 0.8, 1.0]), min_size=2, max_size=8)


@FEW
@given(failed=SHARES)
def test_the_detected_dose_is_the_first_of_a_run_that_stays(failed: list[float]) -> None:
    doses = [i / len(failed) for i in range(len(failed))]
    found = detected(doses, failed, doses)
    if found.dose is None:
        assert failed[-1] < POWER
        return
    place = doses.index(found.dose)
    assert all(share >= POWER for share in failed[place:])
    assert place == 0 or failed[place - 1] < POWER
    assert found.value == found.dose
    assert found.below == (None if place == 0 else doses[place - 1])


@FEW
@given(flat=st.integers(0, 6), steps=st.integers(1, 6))
def test_saturation_begins_where_the_curve_goes_flat(flat: int, steps: int) -> None:
    values = [*map(float, range(steps + 1)), *([float(steps)] * flat)]
    doses = [i / (len(values) - 1) for i in range(len(values))]
    expected = doses[steps] if flat else None
    assert saturates(doses, values) == expected


@FEW
@given(n=st.integers(9, 40), templates=st.integers(1, 12), seed=st.integers(0, 1000))
def test_redrawn_pairs_keep_their_numbers_and_templates_stay_whole(
    n: int, templates: int, seed: int
) -> None:
    pairs = tuple(PromptPair(f"c{i}", f"x{i}", "a", "b", f"t{i % templates}") for i in range(n))
    number = np.arange(float(n))
    data = samples(pairs, base_readout=number, circuit_damage=number * 2)
    found = redrawn(data, np.random.default_rng(seed))
    places = [int(pair.clean[1:]) for pair in found.units]
    assert found.need("readout", role="base").tolist() == places
    assert found.need("damage", "circuit").tolist() == [2 * place for place in places]
    if templates > 1:  # as the gate: one says nothing of how templates differ
        copies = [pair.template for pair in found.units]
        for copy in set(copies):
            own = [place for place, name in zip(places, copies, strict=True) if name == copy]
            code = int(copy.partition("#")[0][1:])
            assert sorted(own) == [i for i in range(n) if i % templates == code]
    else:
        assert len(places) == n
