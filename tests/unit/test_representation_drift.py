"""CKA reads what its closed forms say, and the streams are those of the model."""

from __future__ import annotations

import copy
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from architectures import LAYERS, VOCAB, build
from scipy.stats import ortho_group

from examples.studies.drift.representations import linear_cka, representation_drift
from forgetguard.anatomy.locate import locate
from forgetguard.errors import MeasurementError
from forgetguard.measures.divergence import Passage, passage
from forgetguard.measures.representation_drift import (
    Streams,
    capture_streams,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FloatArray = npt.NDArray[np.float64]
BOTH = pytest.mark.parametrize("unbiased", [True, False])


def normal(rows: int, width: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((rows, width))


def texts(count: int = 8) -> list[Passage]:
    generator = torch.Generator().manual_seed(3)
    return [
        passage(torch.randint(0, VOCAB, (4 + i % 2,), generator=generator).tolist(), [1, 2])
        for i in range(count)
    ]


def streams(rows: FloatArray) -> Streams:
    """One layer's streams."""
    prompts = tuple(passage([i]) for i in range(len(rows)))
    return Streams(prompts, rows[None].astype(np.float32))


# --- CKA -----------------------------------------------------------------------------------------


@BOTH
def test_a_representation_against_itself_reads_exactly_one(unbiased: bool) -> None:
    rows = normal(20, 7)
    assert linear_cka(rows, rows.copy(), unbiased=unbiased) == 1.0


@BOTH
def test_rotation_scale_and_shift_change_nothing(unbiased: bool) -> None:
    rows = normal(20, 7)
    turned = 3.5 * rows @ ortho_group.rvs(7, random_state=1) + normal(1, 7, seed=2)
    assert linear_cka(rows, turned, unbiased=unbiased) == pytest.approx(1, abs=1e-12)
    other = normal(20, 4, seed=3)
    before = linear_cka(rows, other, unbiased=unbiased)
    assert linear_cka(turned, other, unbiased=unbiased) == pytest.approx(before, abs=1e-12)


def test_stretching_one_direction_does_change_it() -> None:
    rows = normal(50, 7)
    stretched = rows * np.array([10, 1, 1, 1, 1, 1, 1])
    # Of independent unit columns: (10^2 + 6) / (sqrt(7) sqrt(10^4 + 6)), here in 50 rows.
    assert linear_cka(rows, stretched) == pytest.approx(106 / np.sqrt(7 * 10006), abs=0.1)


def test_of_unrelated_noise_only_the_unbiased_form_reads_about_zero() -> None:
    pairs = [(normal(30, 100, seed=n), normal(30, 100, seed=1000 + n)) for n in range(40)]
    unbiased = np.array([linear_cka(one, other) for one, other in pairs])
    biased = np.array([linear_cka(one, other, unbiased=False) for one, other in pairs])
    assert abs(unbiased.mean()) < 3 * unbiased.std() / np.sqrt(len(pairs))
    assert abs(unbiased).max() < 0.25
    assert biased.min() > 0.7


def test_the_biased_form_is_that_of_features() -> None:
    x, y = normal(15, 6), normal(15, 9, seed=1) + normal(15, 1, seed=2)
    one, other = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(other.T @ one) ** 2 / (
        np.linalg.norm(one.T @ one) * np.linalg.norm(other.T @ other)
    )
    assert linear_cka(x, y, unbiased=False) == pytest.approx(expected, rel=1e-12)


def test_the_unbiased_form_is_a_mean_over_all_quadruples_of_different_rows() -> None:
    x, y = normal(6, 3), normal(6, 4, seed=1)

    def hsic(k: FloatArray, m: FloatArray) -> float:
        return float(
            np.mean(
                [
                    k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
                    for i, j, q, r in permutations(range(6), 4)
                ]
            )
        )

    k, m = x @ x.T, y @ y.T
    expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


@BOTH
def test_rows_that_do_not_differ_have_no_cka(unbiased: bool) -> None:
    same = np.repeat(normal(1, 5) * 100, 10, axis=0)
    assert np.isnan(linear_cka(same, normal(10, 5), unbiased=unbiased))
    assert np.isnan(linear_cka(normal(10, 5), same, unbiased=unbiased))


def test_other_numbers_of_rows_and_too_few_are_refused() -> None:
    with pytest.raises(MeasurementError, match="same rows, got 6 and 7"):
        linear_cka(normal(6, 2), normal(7, 2))
    with pytest.raises(MeasurementError, match="CKA of 4 prompts"):
        linear_cka(normal(4, 2), normal(4, 2))


# --- Drift ---------------------------------------------------------------------------------------


def test_pseudo_values_are_those_of_leaving_out_each_prompt() -> None:
    x, y = normal(12, 4), normal(12, 4) + 0.5 * normal(12, 4, seed=1)
    found = representation_drift(streams(x), streams(y), draws=2)
    x, y = (one.astype(np.float32).astype(float) for one in (x, y))
    whole = linear_cka(x, y)
    for i in range(12):
        without = linear_cka(np.delete(x, i, 0), np.delete(y, i, 0))
        assert found.pseudo_values[0, i] == pytest.approx(12 * whole - 11 * without, rel=1e-9)
    assert found.cka[0] == pytest.approx(whole, rel=1e-12)
    assert found.biased[0] == pytest.approx(linear_cka(x, y, unbiased=False), rel=1e-12)


def test_the_jackknife_error_is_that_of_fresh_prompts() -> None:
    def one(seed: int) -> tuple[float, float]:
        x = normal(60, 5, seed=seed)
        y = x + normal(60, 5, seed=10_000 + seed)
        found = representation_drift(streams(x), streams(y), draws=1)
        return found.cka[0], found.pseudo_values[0].std(ddof=1) / np.sqrt(60)

    values, errors = np.array([one(seed) for seed in range(60)]).T
    assert np.mean(errors) == pytest.approx(values.std(ddof=1), rel=0.35)


def test_chance_is_near_zero_and_the_biased_form_s_is_not() -> None:
    x = normal(30, 100)
    found = representation_drift(streams(x), streams(x), draws=50)
    assert found.cka[0] == 1.0
    assert len(set(found.chance[0])) == 50  # every draw is another permutation
    assert abs(found.chance[0].mean()) < 0.03
    assert found.chance[0].max() < 0.25
    assert found.chance_biased[0].min() > 0.7
    again = representation_drift(streams(x), streams(x), draws=50)
    assert np.array_equal(again.chance, found.chance)
    other = representation_drift(streams(x), streams(x), draws=50, seed=1)
    assert not np.array_equal(other.chance, found.chance)


def test_a_permuted_representation_reads_what_chance_reads() -> None:
    x = normal(40, 6)
    order = np.random.default_rng(0).permutation(40)  # the first that seed 0 draws
    found = representation_drift(streams(x), streams(x), draws=1)
    x32 = x.astype(np.float32).astype(float)
    assert found.chance[0, 0] == pytest.approx(linear_cka(x32, x32[order]), rel=1e-9)
    assert found.chance_biased[0, 0] == pytest.approx(
        linear_cka(x32, x32[order], unbiased=False), rel=1e-9
    )


def test_one_dominant_direction_is_told() -> None:
    rows = normal(40, 8)
    even = representation_drift(streams(rows), streams(rows), draws=1).top_share[0]
    rows[:, 0] *= 30
    one = representation_drift(streams(rows), streams(rows), draws=1).top_share[0]
    assert even < 0.4
    assert one > 0.99
    assert linear_cka(rows, np.c_[rows[:, :1], normal(40, 7, seed=9)]) > 0.99


def test_distance_is_relative_and_sees_a_rotation() -> None:
    rows = normal(10, 4)
    found = representation_drift(streams(rows), streams(-rows), draws=1)
    assert found.distance[0] == pytest.approx(np.full(10, 2.0))
    assert found.cka[0] == pytest.approx(1)


def test_layers_whose_rows_do_not_differ_read_nan_and_others_are_not_touched() -> None:
    rows, same = normal(10, 4).astype(np.float32), np.ones((10, 4), dtype=np.float32)
    prompts = tuple(passage([i]) for i in range(10))
    both = Streams(prompts, np.stack([same, rows]))
    found = representation_drift(both, both, draws=3)
    assert np.isnan(found.cka[0])
    assert np.isnan(found.chance[0]).all()
    assert found.cka[1] == 1.0
    assert not found.distance.any()


def test_streams_of_other_prompts_are_refused() -> None:
    one, other = streams(normal(8, 4)), streams(normal(9, 4))
    with pytest.raises(MeasurementError, match="same passages"):
        representation_drift(one, other)


# --- Streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3", "gemma2"])
def test_streams_are_the_hidden_states_of_transformers(architecture: str) -> None:
    model = build(architecture)
    anatomy = locate(model)
    prompts = texts(6)
    captured = capture_streams(anatomy, prompts).residual
    assert captured.shape[:2] == (LAYERS, 6)
    for row, text in enumerate(prompts):
        last = text.positions[0]
        states = model(torch.tensor([text.ids]), output_hidden_states=True).hidden_states
        for layer in range(LAYERS - 1):  # the last one of transformers' is after the final norm
            expected = states[layer + 1][0, last].numpy()
            np.testing.assert_allclose(captured[layer, row], expected, rtol=1e-4, atol=1e-4)
        norm = model.get_submodule("transformer.ln_f" if architecture == "gpt2" else "model.norm")
        final = norm(torch.tensor(captured[-1, row])).numpy()
        np.testing.assert_allclose(final, states[-1][0, last].numpy(), rtol=1e-4, atol=1e-4)


def test_a_change_of_one_layer_shows_from_that_layer_on() -> None:
    model = build("qwen3")
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.model.layers[1].mlp.up_proj.weight.neg_()
    prompts = texts(12)
    one, other = (capture_streams(locate(each), prompts) for each in (model, changed))
    found = representation_drift(one, other, draws=2)
    assert found.cka[0] == 1.0
    assert not found.distance[0].any()
    assert found.cka[1] < 0.99
    assert (found.distance[1:] > 0.01).all()
    same = representation_drift(one, capture_streams(locate(copy.deepcopy(model)), prompts))
    assert list(same.cka) == [1.0] * LAYERS
    assert not same.distance.any()


def test_streams_that_are_not_finite_or_of_nothing_are_refused() -> None:
    model = build("gpt2")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight[0] = torch.inf
    with pytest.raises(MeasurementError, match="NaN or infinite"):
        capture_streams(locate(model), texts())
    with pytest.raises(MeasurementError, match="no passages"):
        capture_streams(locate(model), [])
