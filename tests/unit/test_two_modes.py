"""The two-mode mixture: exact gradients, the closed forms, and who forgets by them."""

from __future__ import annotations

import numpy as np
import pytest

from examples.studies.two_modes import (
    GRID,
    Mixture,
    both,
    divergence,
    forward_gradient,
    mean,
    new,
    normal,
    reverse_gradient,
    train,
)

QS = (Mixture(0.0, 0.0, 4.0), Mixture(-1.5, 0.3, 3.2), Mixture(0.7, -0.4, 2.1))


@pytest.mark.parametrize("q", QS)
def test_gradients_are_those_of_finite_differences(q: Mixture) -> None:
    def at(which: int, step: float) -> np.ndarray:
        moved = q.moved(-np.eye(3)[which], step)
        return moved.parts[0] + moved.parts[1]

    for p in (new(3), both(3)):
        for which in range(3):
            up, down = at(which, 1e-5), at(which, -1e-5)
            forward = (divergence(p, up) - divergence(p, down)) / 2e-5
            reverse = (divergence(up, p) - divergence(down, p)) / 2e-5
            assert forward_gradient(q, p)[which] == pytest.approx(forward, abs=1e-7)
            assert reverse_gradient(q, p)[which] == pytest.approx(reverse, abs=1e-7)


def test_divergence_of_two_normals_is_half_the_squared_distance() -> None:
    assert divergence(normal(0), normal(2.5)) == pytest.approx(2.5**2 / 2, rel=1e-9)


@pytest.mark.parametrize("d", [2, 3, 4, 5, 6])
def test_closed_forms_hold(d: int) -> None:
    coefficient = np.exp(-(d**2) / 8)
    assert mean(np.sqrt(normal(0) * new(d)), np.ones_like(GRID)) == pytest.approx(coefficient)
    at_place = Mixture(0.4, 0.0, d)
    old, rest = at_place.parts
    taken = mean(old / (old + rest), new(d))
    assert forward_gradient(at_place, new(d))[0] == pytest.approx(at_place.w - taken)
    assert taken <= np.sqrt(at_place.w / (1 - at_place.w)) * coefficient / 2
    off = Mixture(0.0, 0.0, d + 1.0)
    old, rest = off.parts
    by_q = mean(rest / (old + rest), normal(0))
    by_p = mean(new(d) / (normal(0) + new(d)), normal(0))
    expected = off.w * (off.b * by_q - d * by_p)
    assert reverse_gradient(off, both(d))[1] == pytest.approx(expected, rel=1e-6)
    assert abs(expected) <= (off.b * np.exp(-(off.b**2) / 8) + d * coefficient) / 4


def test_forward_kl_on_new_data_loses_the_old_mode_and_reverse_kl_drifts_by_the_overlap() -> None:
    sft = [train("SFT, new data", d) for d in (2, 4, 6)]
    rl = [train("RL, old kept", d) for d in (2, 4, 6)]
    assert [one.weight for one in sft] == pytest.approx([0.340, 0.013, 0.005], abs=5e-4)
    assert [one.weight for one in rl] == pytest.approx([0.5, 0.5, 0.5], abs=1e-3)
    assert [one.drift for one in rl] == pytest.approx([0.125, 0.049, 0.005], abs=5e-4)
    assert all(one.mass == pytest.approx(1, abs=1e-3) for one in rl)
    assert max(one.missing for one in (*sft, *rl)) < 0.06


def test_the_direction_alone_does_not_decide_it() -> None:
    """Replay saves forward KL; a target without the old mode ruins reverse KL."""
    assert train("SFT, replay", 4).weight == pytest.approx(0.5, abs=1e-3)
    assert train("RL, new alone", 4).mass < 0.03
