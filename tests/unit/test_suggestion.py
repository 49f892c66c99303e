"""Suggested limits: from noise, never below their floors, and what they rest on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetguard.anatomy.members import Head
from forgetguard.api.circuits import SUGGESTED_LIMITS
from forgetguard.capabilities.capability import Capability
from forgetguard.checkpoints import placement
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.placement import ModelPair
from forgetguard.checkpoints.spec import resolve
from forgetguard.gate import studentised
from forgetguard.gate.suggestion import (
    FLOORS,
    Suggestion,
    accuracy_limit,
    base_noise,
    from_noise,
    other_dtype,
    suggest,
)
from forgetguard.measures.vulnerability import Drops, capture_heads, each_and_all, patched

A, B, C = Head(0, 3), Head(1, 0), Head(2, 2)
N = 32


def drops(scale: float, seed: int, *heads: Head, mean: float = 1.0) -> Drops:
    """Drops around `scale * mean`, with a spread of a fifth of `scale`."""
    rng = np.random.default_rng(seed)

    def one() -> np.ndarray:
        return scale * (mean + 0.2 * rng.standard_normal(N))

    return Drops({head: one() for head in heads}, one())


def read(importance: Drops, noise: Drops, seed: int = 0, pairs: int = 64) -> Suggestion:
    # The readout and what noise takes of it: those of the circuit serve.
    whole = importance.circuit, noise.circuit
    return from_noise(importance, noise, *whole, [""] * N, gate_pairs=pairs, seed=seed)


def naive_margin(importance: np.ndarray, noise: np.ndarray, seed: int) -> tuple[float, float]:
    """(noise, split) of one subject, written out."""
    order = np.random.default_rng(seed).permutation(N).tolist()
    halves = [sorted(order[: N // 2]), sorted(order[N // 2 :])]
    bounds, means = [], []
    for half in halves:
        estimate = studentised.ratio(
            noise[half], importance[half], seed=seed, clusters=np.arange(len(half))
        )
        bounds += [abs(estimate.low), abs(estimate.high)]
        means.append(sum(importance[half]) / len(half))
    return max(bounds), abs(means[0] - means[1]) / abs(sum(means) / 2)


def test_floors_are_the_limits_that_are_written_without_noise() -> None:
    assert FLOORS == SUGGESTED_LIMITS


@pytest.mark.parametrize("level", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("seed", [0, 5])
def test_limits_are_those_of_a_naive_recomputation(level: float, seed: int) -> None:
    importance, noise = drops(3.0, 1, A, B), drops(3.0 * level, 2, A, B)
    found = read(importance, noise, seed)

    bound, split = naive_margin(importance.circuit, noise.circuit, seed)
    raw = max(0.10, 2 * bound) * (1 + split)
    assert raw <= found.limits["dcv.circuit"] < raw + 0.01
    assert found.evidence["circuit"]["noise"] == pytest.approx(bound, rel=1e-2)
    assert found.evidence["circuit"]["split_half"] == pytest.approx(split, rel=1e-2)
    raw = max(0.20, 2 * bound) * (1 + split)
    assert raw <= found.limits["readout.drop"] < raw + 0.01
    assert found.evidence["readout"] == found.evidence["circuit"]

    margins = [naive_margin(importance.heads[one], noise.heads[one], seed) for one in (A, B)]
    raw = max(0.25, 2 * max(bound for bound, _ in margins)) * (1 + sum(s for _, s in margins) / 2)
    assert raw <= found.limits["dcv.head"] < raw + 0.01
    noisiest = (A, B)[margins[1][0] > margins[0][0]]
    assert level == 0 or found.evidence["heads"]["noisiest"] == str(noisiest)


def test_one_unstable_head_does_not_loosen_the_limit_of_all() -> None:
    importance, noise = drops(3.0, 1, A, B, C), drops(0.03, 2, A, B, C)
    uneven = importance.heads[C].copy()
    order = np.random.default_rng(0).permutation(N)
    uneven[order[: N // 2]] *= 3  # its importance differs by 100 % between the halves
    mixed = Drops({**importance.heads, C: uneven}, importance.circuit)
    assert read(mixed, noise).limits["dcv.head"] < 0.3


def test_without_noise_and_spread_limits_are_their_floors() -> None:
    flat = Drops({A: np.full(N, 2.0)}, np.full(N, 3.0))
    nothing = Drops({A: np.zeros(N)}, np.zeros(N))
    assert read(flat, nothing).limits == FLOORS


def test_improvement_by_noise_counts_as_much_as_harm() -> None:
    importance, noise = drops(3.0, 1, A), drops(0.9, 2, A)
    turned = Drops({A: -noise.heads[A]}, -noise.circuit)
    assert read(importance, turned).limits == read(importance, noise).limits


def test_a_head_without_importance_is_left_out_and_named() -> None:
    importance = drops(3.0, 1, A, B)
    weak = np.random.default_rng(9).standard_normal(N)
    noise = drops(0.3, 2, A, B)
    mixed = Drops({**importance.heads, C: weak - weak.mean()}, importance.circuit)
    loud = Drops({**noise.heads, C: np.full(N, 100.0)}, noise.circuit)
    found = read(mixed, loud)
    assert found.evidence["left_out"] == ["L2H2"]
    assert found.limits == read(importance, noise).limits


def test_a_negative_head_is_measurable() -> None:
    importance, noise = drops(3.0, 1, A), drops(0.9, 2, A)
    negative = Drops({A: -importance.heads[A]}, importance.circuit)
    found = read(negative, noise)
    assert "left_out" not in found.evidence
    assert found.limits == read(importance, noise).limits


def test_where_nothing_is_measurable_the_floors_stand_and_the_notes_say_so() -> None:
    rng = np.random.default_rng(0)
    centred = rng.standard_normal(N)
    centred -= centred.mean()
    found = read(Drops({A: centred}, centred), drops(1.0, 1, A))
    assert found.limits == FLOORS
    assert "the circuit's importance cannot be told from 0" in found.evidence["notes"][0]
    assert "no head's importance" in found.evidence["notes"][1]


def test_limits_that_would_let_much_be_lost_are_pointed_out() -> None:
    found = read(drops(3.0, 1, A), drops(1.5, 2, A))
    assert found.limits["dcv.circuit"] > 1
    whole, single = found.evidence["notes"]
    assert whole.startswith(f"dcv.circuit {found.limits['dcv.circuit']:.2f} would let much be lost")
    assert "L0H3 reads noise up to" in single


def test_templates_are_resampled_whole_as_in_the_gate() -> None:
    rng = np.random.default_rng(3)
    of = np.arange(N) % 8
    circuit = 3.0 + rng.standard_normal(8)[of] * 0.1 + 0.01 * rng.standard_normal(N)
    importance, noise = Drops({}, circuit), Drops({}, 0.9 + rng.standard_normal(8)[of] * 0.3)
    whole = importance.circuit, noise.circuit
    alone = from_noise(importance, noise, *whole, [""] * N, gate_pairs=64)
    together = from_noise(importance, noise, *whole, [f"t{one}" for one in of], gate_pairs=64)
    assert together.limits["readout.drop"] != alone.limits["readout.drop"]
    assert together.limits["dcv.circuit"] != alone.limits["dcv.circuit"]


@pytest.mark.parametrize(("pairs", "limit"), [(8, 0.32), (16, 0.18), (29, 0.10), (64, 0.10)])
def test_an_accuracy_limit_can_be_kept_by_so_many_pairs(pairs: int, limit: float) -> None:
    assert accuracy_limit(pairs) == limit
    shown = 1 - 0.05 ** (1 / pairs)  # the rule of three
    assert limit >= max(0.10, shown)
    assert limit - max(0.10, shown) < 0.01


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    level=st.floats(0.0, 2.0),
    factor=st.floats(1.0, 20.0),
    pairs=st.integers(8, 200),
)
def test_limits_are_never_below_their_floors_and_grow_with_noise(
    seed: int, level: float, factor: float, pairs: int
) -> None:
    importance, noise = drops(1.0, seed, A, B), drops(level, seed + 1, A, B, mean=0.1)
    more = Drops({head: factor * one for head, one in noise.heads.items()}, factor * noise.circuit)
    less, larger = read(importance, noise, pairs=pairs), read(importance, more, pairs=pairs)
    for key, floor in FLOORS.items():
        assert floor <= less.limits[key] <= larger.limits[key]
        assert less.limits[key] == round(less.limits[key], 2)
        assert math.isfinite(larger.limits[key])


# --- on the tiny base ------------------------------------------------------------------------


@pytest.fixture
def pair() -> ModelPair:
    return ModelPair({"base": resolve("tiny:base", "base")})


def test_the_noise_is_the_other_number_format_and_never_two_models_are_held(
    pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    held: list[int] = []
    load = placement.load_model

    def counted(spec: object, options: LoadOptions, **more: object) -> object:
        held.append(len(pair._loaded))
        loads.append(options.dtype)
        return load(spec, options, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(placement, "load_model", counted)
    ioi = Capability("ioi", task="ioi", count=16).encoded(pair.base.tokenizer)
    heads = (Head(0, 4), Head(2, 2))
    with pair.base.open():
        pass
    found, readout = base_noise(pair, ioi, heads)
    assert 0 < np.abs(found.base.readout - readout).max() < 1
    assert loads == ["float32", "bfloat16", "float32"]
    assert held == [0, 0, 0]
    relative = abs(found.damage(heads, "noise").mean() / found.importance(heads).mean())
    assert 0 < relative < 0.05


def test_the_same_number_format_has_no_noise_at_all(pair: ModelPair) -> None:
    from forgetguard.anatomy.locate import locate

    ioi = Capability("ioi", task="ioi", count=16).encoded(pair.base.tokenizer)
    heads = (Head(0, 4), Head(2, 2))
    with pair.base.open() as model:
        foreign = capture_heads(locate(model), ioi, heads)
    pair.close()
    with pair.base.open() as model:
        same = patched(locate(model), ioi, each_and_all(heads), {"noise": foreign})
    assert not same.damage(heads, "noise").any()


def test_a_suggestion_says_what_it_rests_on(pair: ModelPair, tmp_path: Path) -> None:
    ioi = Capability("ioi", task="ioi", count=32).encoded(pair.base.tokenizer)
    found = suggest(pair, ioi, (Head(0, 3), Head(0, 4)), gate_pairs=16)
    assert found.evidence["noise_of"] == "bfloat16 patched into float32"
    assert found.evidence["pairs"] == 32
    assert found.limits["accuracy.drop"] == 0.18
    assert 0.20 <= found.limits["readout.drop"] < 0.30
    assert 0.10 <= found.limits["dcv.circuit"] < 0.20


@pytest.mark.parametrize(
    ("dtype", "other"),
    [("float32", "bfloat16"), ("float16", "bfloat16"), ("bfloat16", "float32")],
)
def test_a_run_is_never_compared_with_its_own_number_format(dtype: str, other: str) -> None:
    assert other_dtype(dtype) == other
