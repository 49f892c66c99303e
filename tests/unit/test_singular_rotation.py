"""Rotations read the angles that were put in, and no more than a random change where none was."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from checkpoint_family import WIDTH, copy, edit_weights, write_adapter, write_merged, write_model
from safetensors.torch import load_file
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group
from torch import Tensor

from examples.studies.drift.rotations import (
    MatrixRotation,
    checkpoint_rotation,
    controlled,
    gap,
    value_share,
)
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import MeasurementError
from forgetguard.measures.singular_rotation import KINDS, over_control, principal_angles, rotation

pytestmark = pytest.mark.usefixtures("one_thread")

ANGLES = (1e-10, 1e-6, 1e-3, 0.3, math.pi / 4, 1.2, math.pi / 2)
FLOOR = 1e-7  # scipy takes some small angles from cosines where there are large ones beside them
V_PROJ = "model.layers.0.self_attn.v_proj.weight"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("family")
    write_model(home / "base", seed=0)
    write_model(home / "tuned", seed=1)
    return home


def turn(n: int, angle: float, plane: tuple[int, int]) -> Tensor:
    """The rotation of n dimensions by `angle` in the plane of two axes."""
    i, j = plane
    matrix = torch.eye(n, dtype=torch.float64)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def stairs(rows: int, columns: int) -> Tensor:
    """Singular values 8, 7, 6, ... along the axes."""
    matrix = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(min(rows, columns)):
        matrix[i, i] = 8 - i
    return matrix


def normal(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)))


def measure(base: Path, tuned: Path, **settings: object) -> tuple[MatrixRotation, ...]:
    return checkpoint_rotation(
        resolve(str(base), "base"),
        resolve(str(tuned), "tuned"),
        **settings,  # type: ignore[arg-type]
    )


# --- One matrix ----------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", ANGLES)
def test_a_turned_output_side_reads_that_angle_on_the_left(angle: float) -> None:
    base = stairs(6, 5)
    found = rotation(base, turn(6, angle, (1, 4)) @ base, 2)
    assert found.left == pytest.approx([0, angle], rel=1e-5, abs=1e-14)
    assert found.right == pytest.approx([0, 0], abs=1e-14)
    assert value_share(found) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("angle", ANGLES)
def test_a_turned_input_side_reads_that_angle_on_the_right(angle: float) -> None:
    base = stairs(6, 5)
    found = rotation(base, base @ turn(5, angle, (0, 3)), 2)
    assert found.right == pytest.approx([0, angle], rel=1e-5, abs=1e-14)
    assert found.left == pytest.approx([0, 0], abs=1e-14)


def test_a_turn_inside_the_subspace_or_wholly_outside_it_is_none() -> None:
    base = stairs(6, 6)
    for plane in ((0, 1), (4, 5)):
        found = rotation(base, turn(6, 0.4, plane) @ base, 2)
        assert found.left == pytest.approx([0, 0], abs=1e-12)


def test_the_arccosine_cannot_see_what_the_sine_does() -> None:
    base = stairs(6, 5)[:, :1] / 8
    other = turn(6, 1e-10, (0, 4)) @ base
    assert principal_angles(base, other).item() == pytest.approx(1e-10, rel=1e-9)
    assert (base.mT @ other).arccos().item() == 0.0


def test_exchanged_singular_values_are_a_quarter_turn() -> None:
    one = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5]))
    other = torch.diag(torch.tensor([0.5, 2.0, 1.0, 3.0]))
    found = rotation(one, other, 1)
    assert found.left == pytest.approx([math.pi / 2])
    assert found.right == pytest.approx([math.pi / 2])
    assert value_share(found) == 0.0


def test_scaling_turns_nothing_and_is_all_in_the_values() -> None:
    base = normal(9, 7)
    found = rotation(base, 3 * base, 3)
    assert found.left == pytest.approx(np.zeros(3), abs=1e-13)
    assert found.right == pytest.approx(np.zeros(3), abs=1e-13)
    assert found.tuned_values == pytest.approx(3 * found.base_values)
    assert value_share(found) == pytest.approx(1)


def test_equal_matrices_read_exactly_zero() -> None:
    found = rotation(normal(9, 7).float(), normal(9, 7).float(), 3)
    assert not found.left.any()
    assert not found.right.any()
    assert found.change == 0.0
    assert value_share(found) is None


@pytest.mark.parametrize(
    ("shape", "k"), [((9, 7), 1), ((9, 7), 5), ((4, 30), 2), ((30, 4), 3), ((30, 30), 20)]
)
def test_scipy_agrees(shape: tuple[int, int], k: int) -> None:
    base, tuned = normal(*shape), normal(*shape) + 0.7 * normal(*shape, seed=1)
    found = rotation(base, tuned, k)
    for angles, at in ((found.left, base), (found.right, base.mT)):
        other = tuned if at is base else tuned.mT
        one, two = (np.linalg.svd(matrix.numpy())[0][:, :k] for matrix in (at, other))
        assert angles[::-1] == pytest.approx(subspace_angles(one, two), abs=FLOOR)
        assert (np.diff(angles) >= -1e-9).all()


def test_neither_a_common_rotation_nor_a_scale_changes_the_angles() -> None:
    base, tuned = normal(8, 6), normal(8, 6) + 0.3 * normal(8, 6, seed=1)
    before = rotation(base, tuned, 3)
    left, right = (torch.from_numpy(ortho_group.rvs(n, random_state=n)) for n in (8, 6))
    after = rotation(5 * left @ base @ right, 0.1 * left @ tuned @ right, 3)
    assert after.left == pytest.approx(before.left, abs=1e-10)
    assert after.right == pytest.approx(before.right, abs=1e-10)


def test_where_the_cut_has_no_gap_a_touch_turns_it() -> None:
    level = torch.diag(torch.tensor([2.0, 1.0 + 1e-9, 1.0, 0.5], dtype=torch.float64))
    touched = level.clone()
    touched[1, 2] = touched[2, 1] = 1e-6
    found = rotation(level, touched, 2)
    assert gap(found) < 1e-8
    assert found.left[-1] == pytest.approx(math.pi / 4, abs=1e-3)
    clear = rotation(level, touched, 1)
    assert gap(clear) == pytest.approx(0.5)
    assert clear.left[-1] < 1e-5


@pytest.mark.parametrize("k", [0, 6, 7, 100])
def test_k_near_the_full_rank_is_refused(k: int) -> None:
    with pytest.raises(MeasurementError, match=f"k={k} of rank 7: .* choose k from 1 to 5"):
        rotation(normal(9, 7), normal(9, 7, seed=1), k)


def test_angles_are_forced_to_zero_where_two_subspaces_have_no_room() -> None:
    found = rotation(normal(12, 16), normal(12, 16, seed=1), 9)
    assert (found.left < 1e-7).sum() == 2 * 9 - 12
    assert (found.right < 1e-7).sum() == 2 * 9 - 16


def test_matrices_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(MeasurementError, match=r"\[4, 3\] and \[3, 4\]"):
        rotation(normal(4, 3), normal(3, 4), 1)
    bad = normal(4, 3)
    bad[0, 0] = math.nan
    with pytest.raises(MeasurementError, match="NaN or infinite"):
        rotation(bad, bad, 1)


# --- The control ---------------------------------------------------------------------------------


def test_random_changes_have_the_norm_and_if_asked_the_spectrum_of_the_change() -> None:
    change = normal(8, 2) @ normal(2, 6, seed=1)
    values = torch.linalg.svdvals(change)
    for control in ("gaussian", "spectrum"):
        made = controlled(change, control, np.random.default_rng(0))  # type: ignore[arg-type]
        assert made.norm().item() == pytest.approx(change.norm().item())
        same = torch.allclose(torch.linalg.svdvals(made), values, atol=1e-10)
        assert same == (control == "spectrum")
        other = controlled(change, control, np.random.default_rng(1))  # type: ignore[arg-type]
        assert not torch.allclose(made, other)
    with pytest.raises(MeasurementError, match="'uniform' is not known"):
        controlled(change, "uniform", np.random.default_rng(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("control", ["gaussian", "spectrum"])
def test_random_changes_have_no_preferred_direction(control: str) -> None:
    rng = np.random.default_rng(0)
    change = torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
    made = torch.stack([controlled(change, control, rng) for _ in range(3000)])  # type: ignore[arg-type]
    assert made.mean(0).abs().max() < 0.1
    assert made.square().mean(0) == pytest.approx(torch.full((3, 3), 10 / 9), rel=0.15)


def planted(home: Path, directory: Path, change: Tensor) -> MatrixRotation:
    """A base whose v_proj has four large singular values out of 16, and `change` added to it."""
    spectrum = torch.tensor([10.0] * 4 + [1.0] * 12)
    base = torch.cat([torch.diag(spectrum), torch.zeros(16, 16)], dim=1)
    one = edit_weights(
        copy(home / "base", directory / "one"), lambda tensors: tensors[V_PROJ].copy_(base)
    )
    two = edit_weights(
        copy(one, directory / "two"), lambda tensors: tensors[V_PROJ].add_(change.float())
    )
    return measure(one, two, kinds=["v_proj"], draws=5)[0]


def test_a_change_spent_wholly_on_turning_reads_the_most_above_the_control(
    home: Path, tmp_path: Path
) -> None:
    leading = torch.zeros(16, 32, dtype=torch.float64)
    leading[:4, :4] = 10 * torch.eye(4)
    left, right = torch.eye(16, dtype=torch.float64), torch.eye(32, dtype=torch.float64)
    for i in range(4):
        left, right = left @ turn(16, 0.1, (i, 8 + i)), right @ turn(32, 0.1, (i, 20 + i))
    found = planted(home, tmp_path, left @ leading @ right - leading)
    assert found.k == 4
    assert found.tuned.left == pytest.approx([0.1] * 4, abs=0.015)
    assert found.tuned.right == pytest.approx([0.1] * 4, abs=0.015)
    most = math.sqrt(16 * 32 / (4 * (16 + 32 - 8)))
    assert found.over_control == pytest.approx(most, rel=0.15)


def test_a_change_of_the_other_directions_reads_far_below_the_control(
    home: Path, tmp_path: Path
) -> None:
    change = torch.zeros(16, 32)
    change[4:, 4:] = 0.2 * normal(12, 28)
    found = planted(home, tmp_path, change)
    assert found.tuned.change > 1
    assert found.over_control is not None
    assert found.over_control < 1e-6


def test_a_random_change_reads_what_the_control_reads(home: Path, tmp_path: Path) -> None:
    found = planted(home, tmp_path, 0.1 * normal(16, 32, seed=7))
    assert found.over_control == pytest.approx(1, abs=0.25)
    assert found.control_value_share is not None
    assert value_share(found.tuned) == pytest.approx(found.control_value_share, abs=0.1)


# --- Checkpoints ---------------------------------------------------------------------------------


def test_checkpoints_are_measured_matrix_by_matrix(home: Path) -> None:
    found = measure(home / "base", home / "tuned", share=0.5)
    assert {one.kind.split(".")[-1] for one in found} == set(KINDS)
    assert len(found) == 8
    ours, theirs = (load_file(home / n / "model.safetensors") for n in ("base", "tuned"))
    for one in found:
        assert one.k == min(one.shape) // 2
        expected = rotation(ours[one.name], theirs[one.name], one.k)
        assert one.tuned.left == pytest.approx(expected.left, abs=1e-9)
        assert one.tuned.right == pytest.approx(expected.right, abs=1e-9)
        assert one.mean_angle == pytest.approx(np.mean([expected.left, expected.right]))
        assert one.forced_left == max(0, 2 * one.k - one.shape[0])
        assert one.forced_right == max(0, 2 * one.k - one.shape[1])
        assert one.layer == int(one.name.split(".")[2])


def test_an_adapter_turns_what_it_turns_when_merged(home: Path, tmp_path: Path) -> None:
    lora = write_adapter(home / "base", tmp_path / "lora", target_modules=["q_proj", "v_proj"])
    merged = write_merged(home / "base", lora, tmp_path / "merged")
    one, other = (measure(home / "base", tuned, draws=0) for tuned in (lora, merged))
    for mine, theirs in zip(one, other, strict=True):
        assert mine.tuned.left == pytest.approx(theirs.tuned.left, abs=1e-4)
        assert (mine.mean_angle > 0.01) == (mine.kind in {"self_attn.q_proj", "self_attn.v_proj"})


def test_the_measure_reads_what_the_study_does_by_default(home: Path) -> None:
    base, tuned = (resolve(str(home / name), name) for name in ("base", "tuned"))
    expected = {one.name: one.over_control for one in measure(home / "base", home / "tuned")}
    assert over_control(base, tuned) == expected


def test_a_matrix_that_did_not_change_has_no_control(home: Path) -> None:
    base = resolve(str(home / "base"), "base")
    assert set(over_control(base, base).values()) == {0.0}
    for one in measure(home / "base", home / "base"):
        assert one.mean_angle == 0.0
        assert one.control == ()
        assert (one.control_angle, one.over_control, one.control_value_share) == (None, None, None)


def test_the_control_depends_on_the_seed_and_the_matrix_alone(home: Path) -> None:
    def angles(**settings: object) -> dict[str, npt.NDArray[np.float64]]:
        found = measure(home / "base", home / "tuned", **settings)
        return {one.name: one.control[0].left for one in found}

    everything, some = angles(), angles(kinds=["self_attn.v_proj"], draws=2)
    assert len(some) == 2
    assert all(np.array_equal(everything[name], some[name]) for name in some)
    assert not np.array_equal(angles(seed=1)[V_PROJ], everything[V_PROJ])


def test_draws_differ_and_so_do_those_of_equal_matrices(home: Path, tmp_path: Path) -> None:
    def repeat(tensors: dict[str, Tensor]) -> None:
        tensors[V_PROJ.replace("layers.0", "layers.1")] = tensors[V_PROJ].clone()

    one, two = (edit_weights(copy(home / n, tmp_path / n), repeat) for n in ("base", "tuned"))
    first, second = measure(one, two, kinds=["v_proj"], draws=2)
    assert np.array_equal(first.tuned.left, second.tuned.left)
    assert not np.array_equal(first.control[0].left, second.control[0].left)
    assert not np.array_equal(first.control[0].left, first.control[1].left)


def test_one_k_for_all_is_refused_where_it_is_nearly_the_rank(home: Path) -> None:
    with pytest.raises(MeasurementError, match=r"k_proj\.weight: k=14 of rank 16"):
        measure(home / "base", home / "tuned", k=14)
    found = measure(home / "base", home / "tuned", k=12, kinds=["k_proj"])
    assert (found[0].forced_left, found[0].forced_right) == (8, 0)
    assert found[0].shape == (16, WIDTH)


def test_a_kind_that_is_not_there_is_refused_with_those_that_are(home: Path) -> None:
    with pytest.raises(MeasurementError, match=r"'c_attn'; there are .*self_attn\.q_proj"):
        measure(home / "base", home / "tuned", kinds=["q_proj", "c_attn"])
