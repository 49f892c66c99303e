"""The reference suite's table: intervals, matched scores, and what is said of recipes that miss."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from examples.studies.reference import collecting, comparing
from examples.studies.reference.intervals import (
    over_configurations,
    over_seeds,
    pearson,
    spearman,
)
from examples.studies.reference.plan import Plan, read_plan

BASE = {
    "new": {"validation": 0.2, "evaluation": 0.2, "probability": 0.2},
    "prior": {
        "ioi": {"accuracy": 1.0, "readout": 10.0, "probability": 0.8},
        "induction": {"accuracy": 0.9, "readout": 4.0, "probability": 0.5},
    },
}


def record(
    run: str,
    score: float,
    *,
    step: int = 10,
    seed: int = 0,
    kept: float = 1.0,
    evaluation: float = 0.5,
) -> dict:
    recipe, rate = run.split("@")
    return {
        "run": f"{run}-{seed}", "recipe": recipe, "learning_rate": float(rate), "seed": seed,
        "start": None, "after": None, "step": step, "final": False,
        "new": {"validation": score, "evaluation": evaluation, "probability": None},
        "prior": {
            name: {key: value * kept for key, value in one.items()}
            for name, one in BASE["prior"].items()
        },
        "kl": {"new": {"forward": 0.1, "reverse": 0.2}, "prior": {"forward": 0.3, "reverse": 0.4}},
        "dcv": {"ioi": {"value": 0.5, "low": 0.4, "high": 0.6, "heads": {"L0H1": 0.5}}},
        "drift": 0.01,
    }  # fmt: skip


FIXED = (
    "recipes=sft,rl",
    "seeds=0,1",
    "compared=sft vs rl",
    "comparison.compared=[]",
    "comparison.tasks=[induction, ioi]",
)


def plan(*overrides: str, out: Path = Path("out")) -> Plan:
    return read_plan("tiny", [*FIXED, *overrides], out=out)


# --- intervals ---------------------------------------------------------------------------------


def test_the_interval_over_three_seeds_is_students() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    half = 4.302653 * 1.0 / math.sqrt(3)
    assert found["value"] == 2.0
    assert found["low"] == pytest.approx(2 - half, abs=1e-5)
    assert found["high"] == pytest.approx(2 + half, abs=1e-5)
    assert found["values"] == [1.0, 2.0, 3.0]


def test_one_seed_has_a_value_and_no_interval() -> None:
    assert over_seeds([0.5])["low"] is None
    assert over_seeds([])["value"] is None


def test_checkpoints_of_one_configuration_count_as_one() -> None:
    rng = np.random.default_rng(3)
    x = np.repeat(rng.normal(size=8), 30) + 0.01 * rng.normal(size=240)
    y = np.repeat(rng.normal(size=8), 30) + 0.01 * rng.normal(size=240)
    apart = over_configurations(pearson, x, y, [str(i) for i in range(240)], draws=1000)
    together = over_configurations(pearson, x, y, [str(i // 30) for i in range(240)], draws=1000)
    assert together["value"] == apart["value"]
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_with_one_checkpoint_each_the_bootstrap_is_scipys() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=12)
    y = x + rng.normal(size=12)
    found = over_configurations(spearman, x, y, [f"{i:02d}" for i in range(12)])
    theirs = stats.bootstrap(
        (x, y), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False,
        n_resamples=4000, method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found["value"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found["low"], found["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.04)


def test_three_configurations_give_no_interval_and_what_does_not_vary_no_value() -> None:
    few = ["a", "b", "c"]
    assert over_configurations(pearson, [1, 2, 3], [1, 2, 4], few)["low"] is None
    assert over_configurations(pearson, [1, 1, 1], [1, 2, 4], few)["value"] is None


def test_ranks_see_a_curve_as_perfect() -> None:
    x = np.arange(1.0, 9.0)
    assert spearman(x, x**5) == pytest.approx(1.0)
    assert pearson(x, x**5) < 0.9


# --- matched score -----------------------------------------------------------------------------


def test_the_first_checkpoint_within_the_tolerance_is_taken_by_validation_alone() -> None:
    records = [
        record("sft@0.1", 0.84, step=5, evaluation=0.9),
        record("sft@0.1", 0.91, step=20, evaluation=0.1, kept=0.2),
        record("sft@0.1", 0.90, step=30, evaluation=0.9),
        record("sft@0.1", 0.99, step=40),
    ]
    chosen = collecting.matched(records, 0.9, 0.05)
    assert chosen == {"sft": {"0": {"run": "sft@0.1-0", "step": 20}}}


def test_a_higher_score_does_not_choose_the_learning_rate() -> None:
    """One question of 200 more, and sooner, at the higher rate: both count as learned."""
    records = [
        record("sft@0.2", 1.0, step=10, seed=0), record("sft@0.1", 0.995, step=30, seed=0),
        record("sft@0.2", 0.995, step=10, seed=1), record("sft@0.1", 1.0, step=30, seed=1),
    ]  # fmt: skip
    chosen = collecting.matched(records, 1.0, 0.05)["sft"]
    assert [one["run"] for one in chosen.values()] == ["sft@0.1-0", "sft@0.1-1"]


@pytest.mark.parametrize("seed", range(5))
def test_scores_within_the_tolerance_choose_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def chosen() -> dict:
        scores = iter(rng.choice([0.96, 0.97, 0.98, 0.99, 1.0], size=12))
        records = [
            record(f"rl@{rate}", float(next(scores)), step=step, seed=s)
            for rate in (0.1, 0.2) for step in (10, 20) for s in (0, 1, 2)
        ]  # fmt: skip
        return collecting.matched([records[i] for i in rng.permutation(12)], 1.0, 0.05)

    first = {str(s): {"run": f"rl@0.1-{s}", "step": 10} for s in (0, 1, 2)}
    assert chosen() == chosen() == {"rl": first}


def test_a_group_is_taken_at_one_learning_rate_that_serves_every_seed() -> None:
    records = [record("sft@0.1", 0.9, seed=0), record("sft@0.1", 0.3, seed=1)]
    records += [record(f"sft@{rate}", 0.9, seed=s) for rate in (0.2, 0.3) for s in (0, 1)]
    chosen = collecting.matched(records, 0.9, 0.05)["sft"]
    assert [one["run"] for one in chosen.values()] == ["sft@0.2-0", "sft@0.2-1"]


def test_where_no_rate_serves_all_seeds_the_one_for_most_is_taken() -> None:
    reached = {0.1: (0,), 0.2: (1, 2), 0.3: (0, 1)}
    records = [
        record(f"sft@{rate}", 0.9 if seed in seeds else 0.2, seed=seed)
        for rate, seeds in reached.items()
        for seed in (0, 1, 2)
    ]
    chosen = collecting.matched(records, 0.9, 0.05)["sft"]
    assert chosen["0"] is None
    assert [chosen[seed]["run"] for seed in "12"] == ["sft@0.2-1", "sft@0.2-2"]


def test_a_seed_that_does_not_reach_the_target_says_so() -> None:
    records = [record("rl@0.1", 0.5, seed=0), record("rl@0.1", 0.9, seed=1)]
    chosen = collecting.matched(records, 0.9, 0.05)["rl"]
    assert chosen["0"] is None
    assert chosen["1"] is not None


def test_the_common_target_is_the_highest_that_every_seed_of_both_reaches() -> None:
    records = [
        record("sft@0.1", 0.99, seed=0), record("sft@0.1", 0.7, seed=0, step=5),
        record("sft@0.1", 0.95, seed=1), record("sft@0.1", 0.72, seed=1, step=5),
        record("rl@0.1", 0.7, seed=0), record("rl@0.1", 0.97, seed=1),
        record("rl@0.1", 0.71, seed=1, step=5),
    ]  # fmt: skip
    assert collecting.common_target(records, plan("tolerance=0.05")) == 0.75
    # nothing that a claim is about moves it
    worse = [{**one, "prior": {}} for one in records]
    assert collecting.common_target(worse, plan("tolerance=0.05")) == 0.75


def test_a_score_that_takes_another_rate_for_another_seed_is_not_common() -> None:
    records = [record("rl@0.1", 0.9, seed=s) for s in (0, 1)]
    records += [record(f"sft@{rate}", 0.9, seed=s) for rate, s in ((0.1, 0), (0.2, 1))]
    records += [record("sft@0.2", 0.6, seed=0), record("rl@0.1", 0.55, seed=0, step=5)]
    records += [record("rl@0.1", 0.6, seed=1, step=5)]
    assert collecting.common_target(records, plan("tolerance=0.02")) is None
    records += [record("sft@0.2", 0.58, seed=1, step=5)]
    assert collecting.common_target(records, plan("tolerance=0.03")) == 0.58


def test_without_a_common_score_nothing_is_matched() -> None:
    records = [
        record(f"{recipe}@0.1", score, seed=seed)
        for recipe, score in (("sft", 0.9), ("rl", 0.3))
        for seed in (0, 1)
    ]
    found = collecting.table(plan(), BASE, records)
    assert found["target"] is None
    assert set(found["matched"]["sft"].values()) == {None}
    assert comparing.pairings(plan(), found) == {}


def test_the_groups_compared_can_be_others_than_sft_and_rl() -> None:
    records = [record("sft@0.1", 0.8, seed=s) for s in (0, 1)]
    records += [{**record("sft-rl@0.1", 0.8, seed=s), "start": 60} for s in (0, 1)]
    wanted = plan(
        "recipes=sft,sft-rl",
        "sft-rl.start_steps=60",
        "compared=[sft vs sft-rl from 60]",
        "tolerance=0.01",
    )
    found = collecting.table(wanted, BASE, records)
    assert found["target"] == 0.81
    assert len(comparing.pairings(wanted, found)) == 4


def test_a_given_target_is_kept() -> None:
    records = [record("sft@0.1", 0.6), record("rl@0.1", 0.9)]
    found = collecting.table(plan("target=0.6"), BASE, records)
    assert found["matched"]["sft"]["0"] is not None
    assert found["matched"]["rl"]["0"] is None


def test_seeds_are_paired_with_themselves() -> None:
    records = [
        record("sft@0.1", 0.9, seed=0, kept=0.5), record("sft@0.1", 0.9, seed=1, kept=0.7),
        record("rl@0.1", 0.9, seed=0, kept=0.9), record("rl@0.1", 0.9, seed=1, kept=1.0),
    ]  # fmt: skip
    found = collecting.table(plan(), BASE, records)
    values = collecting.paired(found, "rl", "sft", collecting.METRICS["prior readout kept"])
    assert values == pytest.approx([0.4, 0.3])


# --- pairings of learning rates ------------------------------------------------------------------

SWEPT = [
    record(f"{recipe}@{rate}", score, seed=seed, step=step, kept=kept - 0.01 * seed)
    for recipe, rate, step, score, kept in (
        ("sft", 0.1, 30, 0.9, 0.95), ("sft", 0.2, 10, 0.9, 0.8), ("sft", 0.2, 20, 0.91, 0.7),
        ("rl", 0.3, 20, 0.89, 0.9), ("rl", 0.4, 10, 0.9, 0.6), ("rl", 0.5, 10, 0.2, 0.99),
    )
    for seed in (0, 1)
]  # fmt: skip


def test_every_pairing_of_rates_that_reach_the_score_is_shown() -> None:
    found = collecting.table(plan("target=0.9"), BASE, SWEPT)["rates"]
    kept = {
        tuple(one["rates"]): one["numbers"]["prior readout kept, second - first"]["value"]
        for one in found
    }
    assert kept == pytest.approx(
        {(0.1, 0.3): -0.05, (0.1, 0.4): -0.35, (0.2, 0.3): 0.1, (0.2, 0.4): -0.2}
    )
    assert [one["rates"] for one in found if one["judged"]] == [[0.1, 0.3]]
    assert all(one["seeds"] == [0, 1] for one in found)


def test_the_pairing_that_is_judged_has_the_numbers_at_matched_score() -> None:
    found = collecting.table(plan("target=0.9"), BASE, SWEPT)
    (judged,) = [one for one in found["rates"] if one["judged"]]
    for name, (metric, sign) in collecting.RATED.items():
        own = collecting.paired(found, "rl", "sft", collecting.METRICS[metric])
        assert judged["numbers"][name]["values"] == pytest.approx([sign * one for one in own])


def test_a_pairing_says_which_seeds_it_rests_on() -> None:
    records = [one for one in SWEPT if one["run"] != "rl@0.4-1"]
    found = collecting.table(plan("target=0.9"), BASE, records)["rates"]
    seeds = {tuple(one["rates"]): one["seeds"] for one in found}
    assert seeds[0.2, 0.4] == [0]
    assert seeds[0.2, 0.3] == [0, 1]


def test_circuits_that_were_damaged_less_count_for_the_second() -> None:
    records = [one | {"dcv": {"ioi": {"value": 0.5 if one["recipe"] == "sft" else 0.1}}}
               for one in SWEPT]  # fmt: skip
    (judged,) = [
        one for one in collecting.table(plan("target=0.9"), BASE, records)["rates"] if one["judged"]
    ]
    assert judged["numbers"]["circuit DCV, first - second"]["value"] == pytest.approx(0.4)


# --- summaries and files -----------------------------------------------------------------------


def test_capabilities_weigh_the_same_whatever_their_units() -> None:
    one = record("sft@0.1", 0.9)
    one["prior"]["ioi"]["readout"] = 5.0  # half of the base's 10; induction keeps its 4
    summary = collecting.table(plan(), BASE, [one])["checkpoints"][0]
    assert summary["kept"] == pytest.approx(0.75)
    assert summary["vulnerability"] == 0.5


def test_a_circuit_that_cannot_be_read_leaves_the_mean_undefined() -> None:
    one = record("sft@0.1", 0.9)
    one["dcv"]["key_value"] = {"value": None, "low": None, "high": None, "heads": {}}
    assert collecting.table(plan(), BASE, [one])["checkpoints"][0]["vulnerability"] is None


def test_a_damaged_file_counts_as_not_measured(tmp_path: Path) -> None:
    wanted = plan(out=tmp_path)
    name = wanted.runs[0].name
    folder = tmp_path / "measures" / name
    folder.mkdir(parents=True)
    (folder / "step-000030.json").write_text(json.dumps({"key": "k", **BASE}))
    (folder / "step-000060.json").write_text('{"key": "k", "new')
    (found,) = collecting.read_records(wanted, [f"{name}@30", f"{name}@60"])
    assert (found["run"], found["step"], found["final"]) == (name, 30, False)
    assert collecting.read_base(wanted, ["base@0"]) is None


def test_a_file_that_is_not_asked_for_is_no_number_of_the_study(tmp_path: Path) -> None:
    wanted = plan(out=tmp_path)
    for folder, step in ((wanted.runs[0].name, 30), ("base", 0)):
        file = tmp_path / "measures" / folder / f"step-{step:06d}.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"key": "of other settings", **BASE}))
    assert collecting.read_records(wanted, []) == []
    assert collecting.read_base(wanted, []) is None
    assert collecting.read_base(wanted, ["base@0"]) == BASE


def test_each_matched_seed_is_compared_on_each_task() -> None:
    records = [record(f"{one}@0.1", 0.9, seed=s) for one in ("sft", "rl") for s in (0, 1)]
    wanted = comparing.pairings(plan(), collecting.table(plan(), BASE, records))
    tasks = ("induction", "ioi")
    assert list(wanted) == [f"{task}, sft vs rl, seed {s}" for s in (0, 1) for task in tasks]
    assert wanted["ioi, sft vs rl, seed 1"]["reference"] == {"run": "rl@0.1-1", "step": 10}


def test_masks_may_be_for_some_pairs_alone() -> None:
    wanted = plan("compared=[sft vs rl, rl vs sft]", "comparison.compared=rl vs sft")
    records = [record(f"{one}@0.1", 0.9, seed=s) for one in ("sft", "rl") for s in (0, 1)]
    found = comparing.pairings(wanted, collecting.table(wanted, BASE, records))
    assert [one["pair"] for one in found.values()] == [["rl", "sft"]] * 4
