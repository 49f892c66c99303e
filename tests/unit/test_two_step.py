"""Common lower bounds: what is surely within costs nothing, and no family errs more than said."""

from __future__ import annotations

import numpy as np
import pytest

from forgetguard.gate import studentised, two_step
from forgetguard.gate.linear_form import LinearForm
from forgetguard.gate.resampling import FloatArray, IntArray

PAIRS, LIMIT = 64, 0.25
EIGHT, FIVE = np.arange(PAIRS) % 8, np.arange(PAIRS) % 5


def drawn(heads: int, sets: int, at: int, clusters: IntArray | None) -> tuple[FloatArray, ...]:
    """[sets, heads, pairs]: the first `at` heads at the limit, the others at 0."""
    rng = np.random.default_rng(heads + at)

    def noise(shape: tuple[int, ...]) -> FloatArray:
        own: FloatArray = rng.standard_normal(shape)
        if clusters is None:
            return own
        shared = rng.standard_normal((*shape[:-1], int(clusters.max()) + 1))[..., clusters]
        found: FloatArray = 0.4 * shared + 0.9 * own
        return found

    importance = 3 * np.exp(0.3 * noise((sets, heads, PAIRS)) - 0.05)
    damage = 0.5 * (noise((sets, heads, PAIRS)) + noise((sets, 1, PAIRS)))
    damage[:, :at] += LIMIT * importance[:, :at]
    return damage, importance


def lows(damage: FloatArray, importance: FloatArray, alpha: float, **more: object) -> FloatArray:
    found = studentised.ratios(damage, importance, fail_alpha=alpha, resamples=999, **more)  # type: ignore[arg-type]
    return np.array(found.corrected_low)


@pytest.mark.parametrize("clusters", [None, EIGHT, FIVE])
@pytest.mark.parametrize("at", [1, 10])
def test_a_family_within_its_limit_is_failed_no_more_often_than_is_said(
    at: int, clusters: IntArray | None
) -> None:
    sets = drawn(10, 200, at, clusters)
    failed = [lows(*one, 0.05, clusters=clusters).max() > LIMIT for one in zip(*sets, strict=True)]
    assert sum(failed) <= 20  # 5 % of 200 is 10, its standard deviation 3.1


@pytest.mark.parametrize("clusters", [None, EIGHT, FIVE])
def test_heads_that_lost_nothing_cost_a_head_that_did_next_to_nothing(
    clusters: IntArray | None,
) -> None:
    damage, importance = (one[0] for one in drawn(15, 1, 1, clusters))
    damage[0] += 0.4 * importance[0]
    damage[1:] *= 1e-7  # of rounding size
    alone = lows(damage[:1], importance[:1], 0.9 * 0.05, clusters=clusters)[0]
    among = lows(damage, importance, 0.05, clusters=clusters)[0]
    if clusters is None:
        assert among == pytest.approx(alone, abs=1e-3)
    else:  # among others a bound is the ratio's own where it is known, and not Fieller's
        assert among > alone - 0.02
    assert among <= 0.65


def test_the_bound_knows_of_no_limit_and_is_never_below_that_of_all_heads() -> None:
    damage, importance = (one[0] for one in drawn(8, 1, 4, None))
    form = LinearForm.of(damage, importance, None)
    draws = studentised.resampled_t(form, form.values, 1999, 0)
    critical = studentised.quantiles(draws.max(axis=0, keepdims=True), 0.9 * 0.05, form.freedom)
    plain = form.lower(np.repeat(critical, 8))
    found = studentised.ratios(damage, importance, fail_alpha=0.05, resamples=1999)
    assert (np.array(found.corrected_low) >= plain - 1e-12).all()
    assert (np.array(found.corrected_low) <= form.values).all()


def test_of_few_templates_the_tails_of_all_heads_add_up_to_the_level() -> None:
    critical = two_step.student_critical(4.0)
    shifts = np.array([0.0, -1.0, -50.0])
    found = critical(shifts, 0.01)
    t = np.random.default_rng(0).standard_t(4, (3, 400_000))
    beyond = (t + shifts[:, None] > found).mean(axis=1).sum()
    assert beyond == pytest.approx(0.01, rel=0.05)
    assert critical(np.zeros(1), 0.01) == pytest.approx(studentised.student_quantile(0.01, 4.0))
