"""The estimates agree with independent computations, and say so little where little is known."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import optimize, stats

from forgetguard.errors import MeasurementError
from forgetguard.gate import accuracy, power, statistics
from forgetguard.gate.statistics import FloatArray
from forgetguard.gate.verdict import Estimate


def data(seed: int, pairs: int) -> tuple[FloatArray, FloatArray]:
    """Damage and importance of a plausible head: ratio 0.2, both noisy."""
    rng = np.random.default_rng(seed)
    importance = 3 + 1.5 * rng.standard_normal(pairs)
    return 0.2 * importance + 0.5 * rng.standard_normal(pairs), importance


def test_a_damage_of_zero_reads_exactly_zero() -> None:
    _, importance = data(0, 16)
    found = statistics.ratio_of_means(np.zeros(16), importance)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert math.copysign(1, found.value) == 1


def test_a_constant_ratio_has_no_width() -> None:
    _, importance = data(0, 33)
    for ratio in (0.3, -7.1, 1.0):
        found = statistics.ratio_of_means(ratio * importance, importance)
        assert found.low == found.value == found.high == pytest.approx(ratio)


def test_an_interval_says_what_it_covers_and_rests_on() -> None:
    found = statistics.ratio_of_means(*data(0, 20), confidence=0.95)
    assert (found.confidence, found.n) == (0.9, 20)


def naive_bca(numerator: FloatArray, denominator: FloatArray, seed: int) -> tuple[float, float]:
    """BCa at Student-expanded 5 % levels, pair by pair in plain Python with its own draws."""
    rng = np.random.default_rng(seed)
    size = len(numerator)
    value = sum(numerator) / sum(denominator)
    draws = []
    for _ in range(4000):
        chosen = [int(index) for index in rng.integers(0, size, size)]
        draws.append(sum(numerator[i] for i in chosen) / sum(denominator[i] for i in chosen))
    left_out = [
        (sum(numerator) - numerator[i]) / (sum(denominator) - denominator[i]) for i in range(size)
    ]
    centre = sum(left_out) / size
    cubes = sum((centre - one) ** 3 for one in left_out)
    squares = sum((centre - one) ** 2 for one in left_out)
    acceleration = cubes / (6 * squares**1.5)
    normal = stats.norm
    bias = normal.ppf(sum(draw < value for draw in draws) / len(draws))
    bounds = []
    for level in (0.05, 0.95):
        quantile = math.sqrt(size / (size - 1)) * stats.t.ppf(level, size - 1)
        shift = bias + quantile
        bounds.append(np.quantile(draws, normal.cdf(bias + shift / (1 - acceleration * shift))))
    return float(bounds[0]), float(bounds[1])


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_is_that_of_a_naive_loop(skewed: bool) -> None:
    numerator, denominator = data(3, 14)
    if skewed:
        numerator[0] += 6
    found = statistics.ratio_of_means(numerator, denominator, seed=1)
    low, high = naive_bca(numerator, denominator, seed=2)
    # Two independent sets of draws: the 5 % points differ by a few hundredths of the width.
    width = high - low
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)


def test_the_mean_of_many_normal_values_has_students_interval() -> None:
    values = np.random.default_rng(5).standard_normal(400) + 2
    found = statistics.mean(values, confidence=0.95)
    half = stats.t.ppf(0.95, 399) * values.std(ddof=1) / math.sqrt(400)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_a_ratio_of_many_pairs_has_fiellers_interval() -> None:
    numerator, denominator = data(6, 2000)
    found = statistics.ratio_of_means(numerator, denominator)
    n, d = numerator.mean(), denominator.mean()
    cov = np.cov(numerator, denominator) / 2000 * stats.norm.ppf(0.95) ** 2
    roots = np.roots([d**2 - cov[1, 1], -2 * (n * d - cov[0, 1]), n**2 - cov[0, 0]])
    width = roots.max() - roots.min()
    assert found.low == pytest.approx(roots.min(), abs=0.04 * width)
    assert found.high == pytest.approx(roots.max(), abs=0.04 * width)


def test_a_negative_importance_is_a_denominator_like_any_other() -> None:
    numerator, denominator = data(1, 24)
    there = statistics.ratio_of_means(numerator, denominator, seed=4)
    back = statistics.ratio_of_means(-numerator, -denominator, seed=4)
    assert (back.value, back.low, back.high) == (there.value, there.low, there.high)
    assert statistics.measurable(statistics.mean(-denominator))


def test_noise_around_zero_is_not_measurable() -> None:
    noise = np.random.default_rng(0).standard_normal(32)
    assert not statistics.measurable(statistics.mean(noise - noise.mean()))
    assert not statistics.measurable(statistics.mean(np.zeros(32)))
    assert statistics.measurable(statistics.mean(noise + 3))


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    first = statistics.ratio_of_means(*data(2, 20), seed=1)
    assert first == statistics.ratio_of_means(*data(2, 20), seed=1)
    assert first != statistics.ratio_of_means(*data(2, 20), seed=2)


def test_seeds_come_from_names_and_not_from_their_concatenation() -> None:
    seeds = {statistics.derive_seed(0, *names) for names in [("ab",), ("a", "b"), ("b",), ()]}
    assert len(seeds) == 4
    assert statistics.derive_seed(1, "ab") not in seeds


def test_a_head_in_a_family_keeps_its_interval_and_gets_a_lower_corrected_bound() -> None:
    rows = [data(seed, 40) for seed in range(12)]
    family = statistics.ratios_of_means(
        np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]), seed=3
    )
    for (damage, importance), found, low in zip(
        rows, family.estimates, family.corrected_low, strict=True
    ):
        alone = statistics.ratio_of_means(damage, importance, seed=3)
        assert found.low == pytest.approx(alone.low, rel=1e-9)
        assert found.high == pytest.approx(alone.high, rel=1e-9)
        assert low < found.low


def test_pairs_that_repeat_within_templates_are_not_taken_for_more_evidence() -> None:
    numerator, denominator = data(9, 12)
    repeats = np.repeat(np.arange(12), 5)
    copies = numerator[repeats], denominator[repeats]
    naive = statistics.ratio_of_means(*copies)
    honest = statistics.ratio_of_means(*copies, clusters=repeats.astype(np.intp))
    alone = statistics.ratio_of_means(numerator, denominator)
    assert honest.low == pytest.approx(alone.low, rel=1e-9)
    assert honest.high == pytest.approx(alone.high, rel=1e-9)
    assert naive.high - naive.low < 0.6 * (honest.high - honest.low)
    assert honest.n == 60


def test_few_templates_are_not_resampled() -> None:
    assert statistics.cluster_codes([f"t{index % 7}" for index in range(64)]) is None
    codes = statistics.cluster_codes([f"t{index % 8}" for index in range(64)])
    assert codes is not None
    assert len(set(codes.tolist())) == 8
    loose = statistics.cluster_codes(["", "", "a", "a", "", "", "", "", "", ""])
    assert loose is not None
    assert loose[2] == loose[3]
    assert len(set(loose.tolist())) == 9


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [
        ([1.0, math.nan, 1.0], [1.0, 1.0, 1.0]),
        ([1.0, 1.0, 1.0], [1.0, math.inf, 1.0]),
        ([1.0, 1.0], [1.0, 1.0, 1.0]),
        ([1.0], [1.0]),
        ([], []),
        ([1.0, 2.0], [1.0, -1.0]),
    ],
)
def test_what_is_no_ratio_is_an_error(numerator: list[float], denominator: list[float]) -> None:
    with pytest.raises(MeasurementError):
        statistics.ratio_of_means(np.array(numerator), np.array(denominator))


def correct(pairs: int, lost: int, won: int) -> tuple[accuracy.BoolArray, accuracy.BoolArray]:
    base, tuned = np.ones(pairs, dtype=bool), np.ones(pairs, dtype=bool)
    tuned[:lost] = False
    base[pairs - won :] = False
    return base, tuned


def test_no_lost_pair_is_no_proof_of_no_loss() -> None:
    for pairs in (16, 64, 149):
        found = accuracy.accuracy_drop(*correct(pairs, 0, 0))
        # The loss at which seeing none in so many pairs has a chance of 5 %.
        assert (1 - found.high) ** pairs == pytest.approx(0.05)
        assert found.value == 0


def best_likelihood(lost: int, won: int, pairs: int, drop: float) -> float:
    """The likeliest share of won pairs given the drop, by numerical search."""

    def loss(share: float) -> float:
        cells = ((lost, share + drop), (won, share), (pairs - lost - won, 1 - 2 * share - drop))
        return -sum(count * math.log(max(rate, 1e-300)) for count, rate in cells)

    low, high = max(0.0, -drop), (1 - drop) / 2
    options = {"xatol": 1e-12}
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options=options)
    return float(found.x)


@pytest.mark.parametrize(("pairs", "lost", "won"), [(44, 16, 2), (50, 5, 1), (20, 1, 3)])
def test_the_accuracy_bounds_solve_the_score_equation(pairs: int, lost: int, won: int) -> None:
    found = accuracy.accuracy_drop(*correct(pairs, lost, won))
    for drop, side in ((found.low, 1), (found.high, -1)):
        share = best_likelihood(lost, won, pairs, drop)
        variance = (2 * share + drop * (1 - drop)) / pairs
        score = ((lost - won) / pairs - drop) / math.sqrt(variance)
        assert score == pytest.approx(side * stats.norm.ppf(0.95), abs=1e-4)


def test_swapping_the_models_mirrors_the_accuracy_drop() -> None:
    base, tuned = correct(40, 6, 2)
    there, back = accuracy.accuracy_drop(base, tuned), accuracy.accuracy_drop(tuned, base)
    assert there.value == -back.value
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.high == pytest.approx(-back.low, abs=1e-9)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 1), (40, 0), (0, 40), (20, 20)])
def test_the_accuracy_drop_stays_a_difference_of_proportions(lost: int, won: int) -> None:
    found = accuracy.accuracy_drop(*correct(40, lost, won))
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_the_number_of_pairs_that_would_decide_is_the_square_of_the_reach() -> None:
    undecided = Estimate(0.05, 0.0, 0.15, 0.9, 64)
    assert power.pairs_to_decide(undecided, 0.10) == pytest.approx(256, abs=1)
    assert power.pairs_to_decide(Estimate(0.10, 0.0, 0.15, 0.9, 64), 0.10) is None
    assert power.pairs_to_decide(Estimate(0.15, 0.0, 0.2, 0.9, 10), 0.10) == pytest.approx(
        90, abs=1
    )
    assert power.pairs_to_decide(Estimate(0.05, 0.0, math.inf, 0.9, 10), 0.10) is None


def test_the_number_of_pairs_that_would_decide_an_accuracy_does() -> None:
    wanted = power.pairs_to_decide_drop(*correct(64, 0, 0), 0.02)
    assert wanted == 149
    assert accuracy.accuracy_drop(*correct(149, 0, 0)).high <= 0.02
    assert accuracy.accuracy_drop(*correct(148, 0, 0)).high > 0.02


def test_bounds_err_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    low = high = 0
    for seed in range(300):
        importance = 3 + 1.5 * rng.standard_normal(24)
        damage = 0.2 * importance + 0.5 * rng.standard_normal(24)
        found = statistics.ratio_of_means(damage, importance, resamples=999, seed=seed)
        low, high = low + (found.low > 0.2), high + (found.high < 0.2)
    # 5 % of 300 is 15, its standard deviation 3.8.
    assert 3 <= low <= 30
    assert 3 <= high <= 30


def test_a_circuit_of_24_heads_is_resampled_in_well_under_a_second() -> None:
    rows = [data(seed, 64) for seed in range(24)]
    arrays = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
    start = time.process_time()
    statistics.ratios_of_means(*arrays)
    assert time.process_time() - start < 1
