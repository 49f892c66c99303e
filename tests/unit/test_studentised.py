"""Studentised Fieller intervals and simultaneous bounds agree with computations of another kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from forgetguard.errors import MeasurementError
from forgetguard.gate import studentised
from forgetguard.gate.linear_form import LinearForm
from forgetguard.gate.resampling import FloatArray
from forgetguard.gate.studentised import ratios


def data(seed: int, pairs: int, heads: int = 1) -> tuple[FloatArray, FloatArray]:
    """Damage and importance of heads with the ratio 0.2, skewed, [heads, pairs]."""
    rng = np.random.default_rng(seed)
    importance = 3 * np.exp(0.4 * rng.standard_normal((heads, pairs)))
    return 0.2 * importance + 0.3 * rng.gamma(1, 1, (heads, pairs)) - 0.3, importance


def naive_bounds(damage: FloatArray, importance: FloatArray, seed: int) -> tuple[float, float]:
    """Bootstrap-t of `damage - ratio * importance`, draw by draw, inverted by root search."""
    rng = np.random.default_rng(seed)
    size = len(damage)
    residuals = damage - damage.sum() / importance.sum() * importance

    def t(values: FloatArray) -> float:
        return float(values.mean() * math.sqrt(size) / values.std(ddof=1))

    drawn = [t(residuals[rng.integers(0, size, size)]) for _ in range(6000)]
    low, high = np.quantile(drawn, [0.05, 0.95])
    floor = stats.t.ppf(0.95, size - 1)
    low, high = min(low, -floor), max(high, floor)
    value = damage.sum() / importance.sum()
    return (
        optimize.brentq(lambda at: t(damage - at * importance) - high, value - 5, value),
        optimize.brentq(lambda at: t(damage - at * importance) - low, value, value + 5),
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_is_that_of_a_naive_loop(seed: int) -> None:
    damage, importance = data(seed, 15)
    (found,) = ratios(damage, importance, seed=seed).estimates
    low, high = naive_bounds(damage[0], importance[0], seed + 100)
    # Two independent sets of draws.
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))


def test_with_many_pairs_it_is_fiellers_interval() -> None:
    damage, importance = data(3, 4000)
    (found,) = ratios(damage, importance).estimates
    n, d = damage.mean(), importance.mean()
    cov = np.cov(damage[0], importance[0]) / 4000 * stats.norm.ppf(0.95) ** 2
    roots = np.roots([d**2 - cov[1, 1], -2 * (n * d - cov[0, 1]), n**2 - cov[0, 0]])
    width = roots.max() - roots.min()
    assert found.low == pytest.approx(roots.min(), abs=0.04 * width)
    assert found.high == pytest.approx(roots.max(), abs=0.04 * width)


def test_no_interval_is_narrower_than_students() -> None:
    """Heavy tails: few draws show them."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        values = rng.standard_t(3, (1, 12)) + 3
        (found,) = ratios(values, np.ones((1, 12)), seed=seed, resamples=499).estimates
        half = stats.t.ppf(0.95, 11) * values.std(ddof=1) / math.sqrt(12)
        assert found.low <= values.mean() - half + 1e-12
        assert found.high >= values.mean() + half - 1e-12


def test_a_denominator_that_may_be_zero_bounds_nothing() -> None:
    rng = np.random.default_rng(1)
    importance = rng.standard_normal((1, 20))
    importance += 0.1 - importance.mean()
    (found,) = ratios(0.5 + rng.standard_normal((1, 20)), importance).estimates
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_a_negative_importance_is_a_denominator_like_any_other() -> None:
    damage, importance = data(4, 24)
    assert ratios(-damage, -importance) == ratios(damage, importance)


def test_one_head_alone_has_its_own_lower_bound() -> None:
    found = ratios(*data(5, 30))
    assert found.corrected_low[0] == found.estimates[0].low


def test_the_more_heads_the_lower_the_common_bound() -> None:
    damage, importance = data(6, 40, heads=10)
    lows = [
        ratios(damage[:count], importance[:count], seed=1).corrected_low[0] for count in (1, 3, 10)
    ]
    assert lows[0] > lows[1] > lows[2]


def test_heads_that_go_together_cost_nothing() -> None:
    damage, importance = data(7, 40)
    # A tenth of the level is spent on upper bounds (gate/two_step.py).
    alone = ratios(damage, importance, seed=1, fail_alpha=0.9 * 0.05)
    many = ratios(np.repeat(damage, 20, axis=0), np.repeat(importance, 20, axis=0), seed=1)
    assert many.corrected_low == pytest.approx([alone.corrected_low[0]] * 20)


def test_a_head_that_lost_the_same_share_on_every_template_has_a_sharp_common_bound() -> None:
    """Fieller's would be endless: at the level of many limits, the importance alone is not told
    from 0."""
    rng = np.random.default_rng(0)
    importance = np.exp(0.9 * rng.standard_normal((14, 16)))
    damage = 0.01 * rng.standard_normal((14, 16))
    damage[3] += 0.7 * importance[3]
    codes = np.repeat(np.arange(16), 4)
    found = ratios(damage[:, codes], importance[:, codes], fail_alpha=0.05 / 15, clusters=codes)
    form = LinearForm.of(damage[3:4], importance[3:4], None)
    assert form.known().all()
    assert form.lower(np.array([6.0]))[0] == -math.inf
    assert 0.6 < found.corrected_low[3] < 0.7


def test_the_ratios_own_draws_are_those_of_a_naive_loop() -> None:
    damage, importance = data(21, 14)
    form = LinearForm.of(damage, importance, None)
    drawn = np.sort(studentised.resampled_ratio_t(form, 4000, 3)[0])
    rng, value = np.random.default_rng(5), form.values[0]
    naive = []
    for _ in range(4000):
        at = rng.integers(0, 14, 14)
        d, i = damage[0, at], importance[0, at]
        ratio = d.mean() / i.mean()
        error = (d - ratio * i).std(ddof=1) / math.sqrt(14) / i.mean()
        naive.append((ratio - value) / error)
    for share in (0.05, 0.5, 0.95):
        assert np.quantile(drawn, share) == pytest.approx(np.quantile(naive, share), abs=0.25)


@pytest.mark.parametrize("templates", [2, 4, 7])
def test_few_templates_miss_about_as_often_as_they_say(templates: int) -> None:
    """Half of the spread lies between them; taking pairs for independent misses 22 to 36 %."""
    rng = np.random.default_rng(templates)
    codes = np.arange(64) % templates
    noise = [
        math.sqrt(0.5) * rng.standard_normal((600, templates))[:, codes]
        + math.sqrt(0.5) * rng.standard_normal((600, 64))
        for _ in range(2)
    ]
    importance = 3 + noise[0]
    found = ratios(0.2 * importance + 0.5 * noise[1], importance, clusters=codes).estimates
    assert sum(one.high < 0.2 for one in found) <= 46
    assert sum(one.low > 0.2 for one in found) <= 46


def test_many_unrelated_normal_heads_pay_what_sidak_says() -> None:
    rng = np.random.default_rng(8)
    importance = np.ones((12, 300))
    damage = 1 + rng.standard_normal((12, 300))
    found = ratios(damage, importance, resamples=19_999)
    reach = [
        (one.value - low) * math.sqrt(300) / row.std(ddof=1)
        for one, low, row in zip(found.estimates, found.corrected_low, damage, strict=True)
    ]
    assert reach == pytest.approx([stats.norm.ppf(0.95 ** (1 / 12))] * 12, rel=0.06)


def test_a_level_of_nothing_claims_nothing() -> None:
    found = ratios(*data(9, 20, heads=2), fail_alpha=0.0)
    assert found.corrected_low == (-math.inf, -math.inf)
    assert all(math.isfinite(one.low) for one in found.estimates)


def test_a_level_that_the_draws_cannot_show_is_reached_by_students_tail() -> None:
    damage, importance = data(9, 20)
    form = LinearForm.of(damage, importance, None)
    drawn = studentised.resampled_t(form, form.values, 999, 0)
    shown = studentised.quantiles(drawn, studentised.SHOWN, 19)
    wanted = shown * stats.t.isf(1e-6, 19) / stats.t.isf(studentised.SHOWN, 19)
    assert studentised.quantiles(drawn, 1e-6, 19) == pytest.approx(wanted)


def test_a_few_uneven_templates_do_not_hide_an_obvious_loss() -> None:
    """Draws that hold few of them have next to no spread; their tail alone would be endless."""
    sizes = [1, 2, 4, 6, 8, 9, 10, 12, 12]
    codes = np.repeat(np.arange(9), sizes).astype(np.intp)
    worst = math.inf
    for seed in range(20):
        rng = np.random.default_rng(seed)
        importance = 3 + 0.3 * rng.standard_normal((1, 64))
        damage = 0.3 * importance + 0.3 * rng.standard_normal((1, 64))
        found = ratios(damage, importance, fail_alpha=0.05 / 15, seed=seed, clusters=codes)
        worst = min(worst, found.corrected_low[0])
    assert worst > 0.1


def test_what_does_not_vary_has_no_width() -> None:
    importance = data(10, 16)[1]
    for factor in (0.0, 0.3, -7.1):
        found = ratios(factor * importance, importance)
        (one,) = found.estimates
        assert one.low == one.value == one.high == found.corrected_low[0] == pytest.approx(factor)
        assert math.copysign(1, one.value) == math.copysign(1, factor)


def test_pairs_that_repeat_within_templates_are_not_taken_for_more_evidence() -> None:
    damage, importance = data(11, 12)
    repeats = np.repeat(np.arange(12), 5)
    copies = damage[:, repeats], importance[:, repeats]
    naive = ratios(*copies).estimates[0]
    honest = ratios(*copies, clusters=repeats.astype(np.intp)).estimates[0]
    alone = ratios(damage, importance).estimates[0]
    assert honest.interval == pytest.approx(alone.interval, rel=1e-9)
    assert naive.high - naive.low < 0.6 * (honest.high - honest.low)
    assert honest.n == 60


def test_uneven_templates_count_for_fewer_than_even_ones() -> None:
    damage, importance = data(15, 40)
    even = LinearForm.of(damage, importance, np.repeat(np.arange(10), 4).astype(np.intp))
    uneven = LinearForm.of(
        damage, importance, np.repeat(np.arange(10), [1] * 5 + [7] * 5).astype(np.intp)
    )
    assert even.freedom == 9
    assert 4 < uneven.freedom < 6
    assert LinearForm.of(damage, importance, None).freedom == 39


def test_how_many_pairs_a_template_has_is_no_spread() -> None:
    """All pairs alike but for noise in the numerator: only that noise is in the interval."""
    rng = np.random.default_rng(16)
    codes = np.repeat(np.arange(12), rng.integers(1, 12, 12)).astype(np.intp)
    importance = np.full((1, len(codes)), 3.0)
    damage = 0.6 + 0.3 * rng.standard_normal(importance.shape)
    found = ratios(damage, importance, clusters=codes).estimates[0]
    half = stats.t.ppf(0.95, 11) * 0.1 / math.sqrt(len(codes))
    assert found.high - found.low < 4 * half
    doubled = ratios(damage + 30, importance, clusters=codes).estimates[0]
    assert doubled.high - doubled.low == pytest.approx(found.high - found.low)


def test_all_heads_share_the_draws() -> None:
    damage, importance = data(12, 25, heads=4)
    family = ratios(damage, importance, seed=3)
    for row, found in enumerate(family.estimates):
        alone = ratios(damage[row : row + 1], importance[row : row + 1], seed=3).estimates[0]
        assert found.interval == pytest.approx(alone.interval, rel=1e-9)


def test_what_is_no_ratio_is_an_error() -> None:
    ones = np.ones((1, 4))
    for damage, importance in (
        (np.array([[1.0, math.nan, 1.0, 1.0]]), ones),
        (ones, ones[:, :3]),
        (ones[:, :1], ones[:, :1]),
        (ones, np.array([[1.0, -1.0, 1.0, -1.0]])),
    ):
        with pytest.raises(MeasurementError):
            ratios(damage, importance)


def t_statistics(form: LinearForm, ratios: FloatArray) -> FloatArray:
    """T at `ratios`, [heads]: the sum of the residuals over its standard error."""
    residuals = form.residuals(ratios)
    squares = (form.deviations(residuals) ** 2).sum(axis=1)
    return residuals.sum(axis=1) / np.sqrt(squares * form.units / (form.units - 1))


def test_the_statistic_at_the_observed_ratio_is_zero_and_falls_with_the_limit() -> None:
    form = LinearForm.of(*data(13, 30), None)
    assert t_statistics(form, form.values)[0] == pytest.approx(0, abs=1e-9)
    at = [t_statistics(form, form.values + step)[0] for step in (-0.1, -0.05, 0.05)]
    assert at[0] > at[1] > 0 > at[2]


def test_bounds_err_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(14)
    importance = 3 + 1.5 * rng.standard_normal((600, 24))
    damage = 0.2 * importance + 0.5 * rng.standard_normal((600, 24))
    found = ratios(damage, importance, resamples=999, fail_alpha=0).estimates
    # 5 % of 600 is 30, its standard deviation 5.3.
    assert 12 <= sum(one.low > 0.2 for one in found) <= 46
    assert 12 <= sum(one.high < 0.2 for one in found) <= 46


def test_a_ratio_and_a_mean_are_rows_of_one() -> None:
    damage, importance = data(17, 20)
    alone = ratios(damage, importance, fail_alpha=0).estimates[0]
    assert studentised.ratio(damage[0], importance[0]) == alone
    to_one = ratios(damage, np.ones_like(damage), fail_alpha=0).estimates
    assert studentised.means(damage) == to_one
    assert studentised.mean(damage[0]) == to_one[0]


def test_a_mean_has_the_interval_of_a_naive_bootstrap_t() -> None:
    values = np.random.default_rng(18).gamma(1.0, 1.0, 25)
    rng, spread = np.random.default_rng(19), values.std(ddof=1) / 5
    drawn = []
    for _ in range(6000):
        draw = values[rng.integers(0, 25, 25)]
        drawn.append((draw.mean() - values.mean()) / (draw.std(ddof=1) / 5))
    floor = stats.t.ppf(0.95, 24)
    low, high = np.quantile(drawn, [0.05, 0.95])
    found = studentised.mean(values)
    width = found.high - found.low
    assert found.low == pytest.approx(values.mean() - max(high, floor) * spread, abs=0.05 * width)
    assert found.high == pytest.approx(values.mean() - min(low, -floor) * spread, abs=0.05 * width)


def test_the_mean_of_many_normal_values_has_students_interval() -> None:
    values = np.random.default_rng(5).standard_normal(400) + 2
    found = studentised.mean(values, confidence=0.95)
    half = stats.t.ppf(0.95, 399) * values.std(ddof=1) / math.sqrt(400)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_noise_around_zero_is_not_measurable() -> None:
    noise = np.random.default_rng(0).standard_normal(32)
    assert not studentised.measurable(studentised.mean(noise - noise.mean()))
    assert not studentised.measurable(studentised.mean(np.zeros(32)))
    assert studentised.measurable(studentised.mean(noise + 3))


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    first = ratios(*data(2, 20), seed=1)
    assert first == ratios(*data(2, 20), seed=1)
    assert first != ratios(*data(2, 20), seed=2)


def test_an_interval_says_what_it_covers_and_rests_on() -> None:
    found = ratios(*data(0, 20), confidence=0.95).estimates[0]
    assert (found.coverage, found.n) == (0.9, 20)
