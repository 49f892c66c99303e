"""Pairs of one template change sides together: the accuracy's bounds account for that."""

from __future__ import annotations

import numpy as np
import pytest
from known_samples import changed, read, samples
from scipy import stats

from forgetguard.anatomy.members import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate import accuracy, power
from forgetguard.gate.declaration import GateSpec, InlinePairs, Limit
from forgetguard.gate.estimate import Bounds, Case
from forgetguard.gate.rule import judge
from forgetguard.gate.verdict import Estimate, Outcome
from forgetguard.measures.samples import Samples

TEXTS = (PromptPair("a", "b", "c", "d"), PromptPair("e", "f", "g", "h"))
SPEC = GateSpec("c", "ioi", InlinePairs(TEXTS), "logit_diff", (Head(0, 0),), ())


def measured(lost: np.ndarray, templates: int) -> Samples:
    """[pairs] that the base gets right and the tuned model loses; `templates` in turn, or none."""
    pairs = len(lost)
    readout = 5 + np.random.default_rng(0).standard_normal(pairs)
    return samples(
        tuple(
            PromptPair(
                f"c{i:04}", f"x{i:04}", " y", " n",
                template=f"t{i % templates:02}" if templates else "",
            )
            for i in range(pairs)
        ),
        base_readout=readout,
        tuned_readout=readout - lost,
        base_correct=np.ones(pairs, dtype=bool),
        tuned_correct=~lost.astype(bool),
    )  # fmt: skip


def drop(data: Samples) -> Bounds:
    """The drop of accuracy with what a limit is held to."""
    case = Case.of(SPEC, data, seed=0, family=1)
    return case.proportion_drop(read(data, "base_correct"), read(data, "tuned_correct"))


def tangos(data: Samples) -> Estimate:
    """The drop as if pairs were independent."""
    before, now = (read(data, name) != 0 for name in ("base_correct", "tuned_correct"))
    return accuracy.accuracy_drop(before, now)


def drawn(rng: np.random.Generator, pairs: int, templates: int, rate: float, together: float):
    """Losses at a mean rate, whose rate varies from template to template with the intra-class
    correlation `together` (beta-binomial), [pairs]."""
    size = (1 - together) / together
    rates = rng.beta(rate * size, (1 - rate) * size, templates)
    return rng.random(pairs) < rates[np.arange(pairs) % templates]


def naive_effect(loss: np.ndarray, templates: int) -> float:
    """The variance of the mean by template over that by pair, in plain Python."""
    pairs, mean = len(loss), float(loss.mean())
    sums = [0.0] * templates
    for place, value in enumerate(loss.tolist()):
        sums[place % templates] += value - mean
    by_template = sum(one**2 for one in sums) * templates / (templates - 1) / pairs**2
    by_pair = sum((value - mean) ** 2 for value in loss.tolist()) / (pairs - 1) / pairs
    return by_template / by_pair


def test_bounds_solve_the_score_equation_of_the_effective_counts() -> None:
    lost = drawn(np.random.default_rng(3), 128, 16, 0.15, 0.3)
    data = measured(lost, 16)
    effect = naive_effect(lost.astype(float), 16)
    assert effect > 1.5
    found = drop(data).estimate
    quantile = stats.t.ppf(0.95, 15)
    counts = lost.sum() / effect, 0.0, 128 / effect
    assert accuracy.drop_score(*counts, found.low) == pytest.approx(quantile, abs=1e-6)
    assert accuracy.drop_score(*counts, found.high) == pytest.approx(-quantile, abs=1e-6)
    assert found.value == pytest.approx(lost.mean())


def test_losses_spread_evenly_over_templates_read_as_independent_pairs() -> None:
    loss = np.zeros(128)
    loss[:16] = 1  # one in each template
    effect, freedom = accuracy.design_effect(loss, np.arange(128) % 16)
    assert (effect, freedom) == (1.0, 15.0)
    uneven = np.repeat(np.arange(10), [1] * 5 + [7] * 5)
    assert 4 < accuracy.design_effect(np.arange(40.0), uneven)[1] < 6


def test_a_template_that_changes_sides_as_one_counts_as_one_pair() -> None:
    """Sixteen templates of eight pairs, each lost or kept whole."""
    whole = np.tile(np.arange(16) < 4, 8).astype(float)
    effect, _ = accuracy.design_effect(whole, np.arange(128) % 16)
    assert effect == pytest.approx(8 * (16 / 15) / (128 / 127))


def test_a_single_lost_pair_is_no_template_lost() -> None:
    lost = np.zeros(64)
    lost[5] = 1
    data = measured(lost, 8)
    tango, found = tangos(data), drop(data).estimate
    assert tango.high < found.high < 1.4 * tango.high


@pytest.mark.parametrize("templates", [0, 1])
def test_without_templates_to_resample_it_is_tangos(templates: int) -> None:
    data = measured(drawn(np.random.default_rng(1), 64, 16, 0.2, 0.2), templates)
    assert drop(data).estimate == tangos(data)


def test_no_lost_pair_is_judged_by_the_rule_of_three_whatever_the_templates() -> None:
    held = drop(measured(np.zeros(64), 16))
    assert held.estimate.high == pytest.approx(1 - 0.05 ** (1 / 64))


def test_a_loss_that_one_template_carries_is_not_passed() -> None:
    """7.8 % in all, 62 % in one of eight: another eight templates might hold two such."""
    lost = np.zeros(128)
    lost[np.arange(128) % 8 == 0] = np.arange(16) < 10
    limit = Limit("accuracy.drop", 0.14, 0)
    assert judge(SPEC, limit, measured(lost, 0)).outcome is Outcome.PASS
    found = judge(SPEC, limit, measured(lost, 8))
    assert found.outcome is Outcome.ABSTAIN
    assert found.estimate is not None
    assert found.estimate.high <= 1


def test_bounds_err_about_as_often_as_they_say_where_templates_go_together() -> None:
    """At a true drop of 0.10 with an intra-class correlation of 0.3, 256 pairs of 16 templates."""
    rng = np.random.default_rng(8)
    wrong = {"tango": 0, "pass": 0, "alarm": 0}
    for _ in range(300):
        data = measured(drawn(rng, 256, 16, 0.10, 0.3), 16)
        held = drop(data)
        wrong["pass"] += held.estimate.high < 0.10
        wrong["alarm"] += held.corrected_low > 0.10
        wrong["tango"] += tangos(data).high < 0.10
    # Pairs taken for independent err in 26 %; what is left is that 16 templates say little of their
    # own spread (docs/statistics.md).
    assert wrong["tango"] > 60
    assert wrong["pass"] < 45
    assert wrong["alarm"] <= 27


def test_the_baselines_drop_accounts_for_templates_too() -> None:
    lost = drawn(np.random.default_rng(3), 128, 16, 0.15, 0.3)
    data = measured(lost, 16)
    then = {"recorded_readout": "base_readout", "recorded_correct": "base_correct"}
    data = changed(data, **{name: read(data, same) for name, same in then.items()})
    found = judge(SPEC, Limit("accuracy.drop.over_baseline", 0.1, 0), data)
    assert found.estimate is not None
    assert found.estimate == drop(data).estimate


@pytest.mark.parametrize(("rate", "together"), [(0.04, 0.05), (0.05, 0.03)])
def test_as_many_pairs_of_these_templates_as_are_wanted_decide_about_every_second_time(
    rate: float, together: float
) -> None:
    """Wanted is where the bound reaches the limit if the value stays, so half of draws pass it."""
    rng, templates, pairs, limit = np.random.default_rng(5), 24, 64, 0.10
    expected = 1 + (pairs / templates - 1) * together
    of = np.arange(pairs) % templates

    def typical(lost: np.ndarray) -> bool:
        effect, _ = accuracy.design_effect(lost.astype(float), of)
        return abs(lost.mean() - rate) < 0.5 / pairs and abs(effect - expected) < 0.08

    tries = (drawn(rng, pairs, templates, rate, together) for _ in range(5000))
    lost, base = next(one for one in tries if typical(one)), np.ones(pairs, dtype=bool)
    wanted = power.pairs_to_decide_drop(base, ~lost, limit, clusters=of)
    alone = power.pairs_to_decide_drop(base, ~lost, limit)
    assert wanted is not None
    assert alone is not None
    assert wanted > max(alone, pairs)
    decided = 0
    for _ in range(600):
        again = drawn(rng, wanted, templates, rate, together)
        found = accuracy.accuracy_drop(
            np.ones(wanted, dtype=bool), ~again, clusters=np.arange(wanted) % templates
        )
        decided += found.high <= limit or found.low > limit
    assert 0.40 < decided / 600 < 0.62


def test_where_templates_change_sides_whole_no_number_of_their_pairs_is_wanted() -> None:
    of = np.arange(64) % 16
    base, tuned = np.ones(64, dtype=bool), of >= 1  # one template of sixteen is lost
    assert power.pairs_to_decide_drop(base, tuned, 0.10, clusters=of) is None
    assert power.pairs_to_decide_drop(base, tuned, 0.10) is not None
