"""The shipped results of the reference suite: page, verdicts and checkpoints belong to them, and a
fresh short run finds the same again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from examples.studies.reference import claims, measuring, page, suite, training
from examples.studies.reference.plan import Plan, described, read_plan
from examples.studies.tiny import preset

DOCS = Path(__file__).parents[2] / "docs"
# Another processor or torch rounds differently, and training makes more of it with every step.
SCORE, KEPT, DCV = 0.05, 0.02, 0.02
SFT, RL = "sft-0.001-seed0", "rl-0.001-seed0"


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "reference" / suite.RESULTS).read_text("utf-8"))
    return found


def record(found: Mapping[str, Any], run: str, step: int) -> dict[str, Any]:
    (one,) = [
        one for one in found["checkpoints"] if (one["run"], one["step"]) == (run, step)
    ]  # fmt: skip
    return one


def assert_alike(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for part in ("validation", "evaluation"):
        assert found["new"][part] == pytest.approx(expected["new"][part], abs=SCORE)
    assert found["prior"].keys() == expected["prior"].keys()
    for task, own in expected["prior"].items():
        assert found["prior"][task]["readout"] == pytest.approx(own["readout"], rel=KEPT)
        assert found["prior"][task]["accuracy"] == pytest.approx(own["accuracy"], abs=KEPT)
    for capability, own in expected["dcv"].items():
        assert found["dcv"][capability]["value"] == pytest.approx(own["value"], abs=DCV)
    for where in ("new", "prior"):
        for direction, value in expected["kl"][where].items():
            assert found["kl"][where][direction] == pytest.approx(value, rel=0.05, abs=0.01)


def test_the_shipped_results_are_of_the_shipped_preset(shipped: dict[str, Any]) -> None:
    plan = read_plan("tiny", out=Path("out"))
    assert shipped["plan"] == json.loads(json.dumps(described(plan)))
    assert {one["name"] for one in shipped["runs"]} == {run.name for run in plan.runs}
    ends = {one["run"] for one in shipped["checkpoints"] if one["final"]}
    assert ends == {run.name for run in plan.runs}
    assert shipped["failed"] == {}


def test_the_shipped_verdicts_follow_from_the_shipped_numbers(shipped: dict[str, Any]) -> None:
    judged = suite._rounded(claims.judge(shipped))
    for ours, theirs in zip(judged, shipped["claims"], strict=True):
        assert (ours["key"], ours["pair"]) == (theirs["key"], theirs["pair"])
        assert ours["verdict"] == theirs["verdict"]
        for number, known in zip(ours["numbers"], theirs["numbers"], strict=True):
            assert number.get("value") == pytest.approx(known.get("value"), abs=1e-4)


def test_the_page_says_what_the_results_say(shipped: dict[str, Any]) -> None:
    written = (DOCS / "reference.md").read_text("utf-8")
    assert page.fill(written, shipped) == written
    for figure in page.FIGURES:
        assert (DOCS / "reference" / f"{figure}.svg").is_file()


def test_sft_and_rl_both_learn_the_new_task_with_every_seed(shipped: dict[str, Any]) -> None:
    assert shipped["base"]["score"] < 0.3
    for recipe in ("sft", "rl"):
        for seed in shipped["plan"]["seeds"]:
            ends = [
                one["score"]
                for one in shipped["checkpoints"]
                if (one["recipe"], one["seed"]) == (recipe, seed) and one["final"]
            ]
            assert max(ends) > 0.9


@pytest.mark.parametrize("name", ["sft", "rl"])
def test_the_shipped_checkpoints_are_those_of_the_results(
    shipped: dict[str, Any], tmp_path: Path, name: str
) -> None:
    plan = read_plan("tiny", out=tmp_path)
    run = preset.load().runs[name]
    package = Path(measuring.resolve(f"tiny:{name}", "tuned").location)
    found = measuring._measured(plan, package)
    expected = record(shipped, run, plan.run(run).settings.steps)
    assert_alike(found, expected)
    # The same bytes: nothing but the last bits of arithmetic may differ.
    for capability, own in expected["dcv"].items():
        assert found["dcv"][capability]["value"] == pytest.approx(own["value"], abs=1e-3)


# A run of fewer steps goes through the same checkpoints: its learning rate is constant.
SHORT = (
    "recipes=sft,rl", "seeds=0", "sft.learning_rates=[1e-3]", "rl.learning_rates=[1e-3]",
    "sft.steps=60", "rl.steps=20",
)  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    pytest.importorskip("trl", reason="the recipes extra is not installed")
    plan = read_plan("tiny", SHORT, out=tmp_path_factory.mktemp("fresh"))
    for run in plan.runs:
        training.train(plan, run.name, lambda *_: None)
    return plan


@pytest.mark.parametrize(("run", "step"), [(SFT, 60), (RL, 20)])
def test_a_fresh_run_finds_the_shipped_numbers(
    shipped: dict[str, Any], fresh: Plan, run: str, step: int
) -> None:
    found = measuring._measured(fresh, training.checkpoints(fresh.run(run))[step])
    assert_alike(found, record(shipped, run, step))
