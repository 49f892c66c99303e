"""The reference suite from end to end: with stand-ins for training and measuring, then for real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from examples.studies.reference import claims, collecting, measuring, suite, training
from examples.studies.reference.plan import Plan, read_plan
from forgetguard.checkpoints.spec import resolve
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.recipes.training.run_card import (
    RunCard,
    final_fingerprint,
    hash_questions,
    write_card,
)
from forgetguard.recipes.training.saved_states import mark
from forgetguard.recipes.training.settings import as_dict

SMALL = (
    "recipes=sft,rl,sft-rl", "seeds=0,1", "sft.learning_rates=[1e-3]", "rl.learning_rates=[1e-3]",
    "sft.steps=4", "sft.save_every=2", "rl.steps=2", "rl.save_every=2", "all.log_every=1",
    "sft-rl.start_rate=1e-3", "sft-rl.start_steps=[2]", "sft-rl.steps=2", "sft-rl.save_every=2",
    "all.warmup=0", "circuits.names=[tiny-ioi]", "comparison.tasks=[ioi]", "compared=sft vs rl",
)  # fmt: skip


# --- stand-ins ---------------------------------------------------------------------------------


def copied(plan: Plan, name: str, _: Any) -> None:
    """A run whose every checkpoint is a copy of tiny:sft; it leaves what a finished run leaves."""
    run = plan.run(name)
    source = resolve("tiny:sft", "tuned").directory
    if run.after is not None:
        assert Path(str(run.settings.start)).is_dir()
    every = run.settings.save_every
    for step in range(every, run.settings.steps + 1, every):
        folder = run.folder / f"checkpoint-{step}"
        shutil.copytree(source, folder)
        mark(folder, step, 1.0, resumable=False)
    final = run.folder / training.FINAL
    shutil.copytree(source, final)
    settings = as_dict(run.settings)
    settings.pop("output")
    own = final_fingerprint(final)
    write_card(final, RunCard(settings, hash_questions([]), own, own, {}, 1, 1.0, {}, run.seed))


def failing(plan: Plan, name: str, progress: Any) -> None:
    if name == "sft-0.001-seed1":
        raise MeasurementError("training diverged")
    copied(plan, name, progress)


def made_up(plan: Plan, name: str, _: Any) -> None:
    """SFT loses a tenth more of everything than RL, at the same score."""
    recipe = name.partition("-0")[0]
    lost = {"base@0": 0.0, "sft": 0.2, "rl": 0.1}.get(recipe, 0.15) + 0.01 * ("seed1" in name)
    found = {
        "new": dict.fromkeys(("validation", "evaluation", "probability"), 0.9),
        "prior": {
            "ioi": {"accuracy": 1 - lost, "readout": 9 * (1 - lost), "probability": 1 - lost}
        },
    }
    if recipe != "base@0":
        found |= {
            "kl": {
                part: {"forward": lost, "reverse": lost} for part in ("new", "prior")
            },
            "dcv": {"ioi": {"value": lost, "low": 0.0, "high": 1.0, "heads": {"L0H1": lost}}},
            "drift": lost,
        }  # fmt: skip
    file = measuring.record_file(plan, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"key": measuring.key_of(plan, name), **found}))


def no_masks(shared: Any, name: str, _: Any) -> None:
    raise MeasurementError("no masks here")


WORKS = suite.Works(copied, made_up, no_masks)


def plan(out: Path, *overrides: str) -> Plan:
    return read_plan("tiny", [*SMALL, *overrides], out=out)


def run(wanted: Plan, **given: Any) -> tuple[suite.Outcome, list[str]]:
    told: list[str] = []
    outcome = suite.run(wanted, jobs=0, say=told.append, **{"works": WORKS, **given})
    return outcome, told


# --- the frame ---------------------------------------------------------------------------------


def test_one_call_trains_measures_judges_and_writes_the_page(tmp_path: Path) -> None:
    outcome, _ = run(plan(tmp_path))
    assert set(outcome.failed) == {f"ioi, sft vs rl, seed {seed}" for seed in (0, 1)}
    assert outcome.page == tmp_path / "reference.md"
    found = json.loads((tmp_path / "reference" / suite.RESULTS).read_text("utf-8"))
    assert len(found["checkpoints"]) == 2 * (2 + 1 + 1)
    (kept,) = [one for one in found["claims"] if one["key"] == "circuit-kept"]
    assert kept["numbers"][0]["values"] == pytest.approx([0.1, 0.1])
    assert "not there: ioi, sft vs rl, seed 0: no masks here" in outcome.page.read_text("utf-8")
    assert str(tmp_path) not in (tmp_path / "reference" / suite.RESULTS).read_text("utf-8")


def test_a_second_call_does_nothing_again_and_ends_the_same(tmp_path: Path) -> None:
    run(plan(tmp_path), figures=False)
    before = (tmp_path / "reference.md").read_text("utf-8")
    none = suite.Works(no_masks, no_masks, no_masks)
    outcome, told = run(plan(tmp_path), figures=False, works=none)
    assert set(outcome.failed) == {f"ioi, sft vs rl, seed {seed}" for seed in (0, 1)}
    assert "training: 6 runs, 6 of them finished before" in told
    assert "measuring: 9 checkpoints, 9 of them before" in told
    assert (tmp_path / "reference.md").read_text("utf-8") == before


def test_a_folder_that_was_moved_goes_on(tmp_path: Path) -> None:
    run(plan(tmp_path / "here"), figures=False)
    before = (tmp_path / "here" / "reference.md").read_text("utf-8")
    (tmp_path / "here").rename(tmp_path / "there")
    none = suite.Works(no_masks, no_masks, no_masks)
    _, told = run(plan(tmp_path / "there"), figures=False, works=none)
    assert "training: 6 runs, 6 of them finished before" in told
    assert "measuring: 9 checkpoints, 9 of them before" in told
    assert (tmp_path / "there" / "reference.md").read_text("utf-8") == before


def test_numbers_of_other_settings_are_not_reported(tmp_path: Path) -> None:
    """Measured before the circuits were changed, then reported without measuring again."""
    run(plan(tmp_path), figures=False)
    changed = plan(tmp_path, "circuits.pairs=8")
    with pytest.raises(MeasurementError, match="no checkpoint has been measured"):
        run(changed, figures=False, stages=("report",))


def test_a_run_that_fails_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    outcome, _ = run(plan(tmp_path), works=suite.Works(failing, made_up, no_masks), figures=False)
    assert outcome.failed["sft-0.001-seed1"] == "training diverged"
    assert "as sft-0.001-seed1 failed" in outcome.failed["sft-rl-0.0003-from2-seed1"]
    wanted = plan(tmp_path)
    records = collecting.read_records(wanted, measuring.there(wanted))
    assert {one["run"] for one in records} >= {"rl-0.001-seed1", "sft-rl-0.0003-from2-seed0"}
    # mended, it is taken up again
    outcome, told = run(plan(tmp_path), figures=False)
    assert "training: 6 runs, 4 of them finished before" in told
    assert "sft-0.001-seed1" not in outcome.failed


def test_changed_weights_are_measured_anew(tmp_path: Path) -> None:
    run(plan(tmp_path), figures=False)
    final = plan(tmp_path).run("rl-0.001-seed0").folder / training.FINAL
    shutil.copy2(resolve("tiny:base", "base").directory / "model.safetensors", final)
    assert not measuring.measured(plan(tmp_path), "rl-0.001-seed0@2")
    assert measuring.measured(plan(tmp_path), "rl-0.001-seed1@2")
    assert not measuring.measured(plan(tmp_path, "prior.count=3"), "rl-0.001-seed1@2")


def test_other_data_need_another_folder_and_more_seeds_do_not(tmp_path: Path) -> None:
    run(plan(tmp_path), figures=False)
    with pytest.raises(SpecificationError, match="holds another study: train was 3200, is 9"):
        run(plan(tmp_path, "data.train=9"))
    _, told = run(plan(tmp_path, "seeds=0,1,2"), figures=False)
    assert "training: 9 runs, 6 of them finished before" in told


def test_a_folder_that_is_no_study_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")  # a training run's
    with pytest.raises(SpecificationError, match=r"something else than a study \(run\.json;"):
        run(plan(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / "run.json").rename(tmp_path / ".gitkeep")
    outcome, _ = run(plan(tmp_path), stages=("train",))
    assert not outcome.failed


def test_stages_run_alone_from_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no checkpoint has been measured"):
        run(plan(tmp_path), stages=("report",))
    run(plan(tmp_path), stages=("train",))
    run(plan(tmp_path), stages=("measure",))
    docs = tmp_path / "docs"
    outcome, _ = run(plan(tmp_path), stages=("report",), docs=docs, figures=False)
    assert outcome.page == docs / "reference.md"
    assert not outcome.failed


def test_two_suites_cannot_share_a_folder(tmp_path: Path) -> None:
    def second(wanted: Plan, name: str, _: Any) -> None:
        run(wanted)

    outcome, _ = run(
        plan(tmp_path), stages=("train",), works=suite.Works(second, made_up, no_masks)
    )
    assert "in use by another run" in outcome.failed["sft-0.001-seed0"]


# --- for real ----------------------------------------------------------------------------------

REAL = (
    "recipes=sft,rl", "seeds=0", "sft.learning_rates=[1e-3]", "rl.learning_rates=[1e-4]",
    "sft.steps=4", "sft.save_every=2", "rl.steps=2", "rl.save_every=2", "all.log_every=1",
    "all.warmup=0", "data.train=64", "data.validation=24", "data.evaluation=24", "prior.count=8",
    "prior.tasks=[ioi,induction]", "circuits.names=[tiny-ioi]", "circuits.pairs=8",
    "comparison.tasks=[]", "tolerance=0.3", "compared=sft vs rl",
)  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short runs of the real recipes, measured by the real measures."""
    pytest.importorskip("trl", reason="the recipes extra is not installed")
    out = tmp_path_factory.mktemp("reference")
    wanted = read_plan("tiny", REAL, out=out)
    outcome = suite.run(wanted, jobs=0)
    assert not outcome.failed
    return out


def test_real_runs_are_measured_at_every_checkpoint(real: Path) -> None:
    found = json.loads((real / "reference" / suite.RESULTS).read_text("utf-8"))
    assert [(one["recipe"], one["step"]) for one in found["checkpoints"]] == [
        ("sft", 2), ("sft", 4), ("rl", 2),
    ]  # fmt: skip
    base, last = found["base"], found["checkpoints"][1]
    assert base["accuracy"] > 0.9
    assert 0 < base["new"]["probability"] < 0.5
    assert 0 < last["drift"] < 0.1
    for part in ("new", "prior"):
        assert 0 < last["kl"][part]["forward"] < 1
    heads = last["dcv"]["ioi"]["heads"]
    assert "L0H4" in heads
    assert last["dcv"]["ioi"]["low"] <= last["dcv"]["ioi"]["value"] <= last["dcv"]["ioi"]["high"]


def test_the_suite_asserts_no_claim_but_judges_each(real: Path) -> None:
    found = json.loads((real / "reference" / suite.RESULTS).read_text("utf-8"))
    assert [one["key"] for one in found["claims"]] == [one.key for one in claims.CLAIMS]
    known = {claims.REPRODUCED, claims.REFUTED, claims.UNDECIDED, claims.UNTESTED}
    assert {one["verdict"] for one in found["claims"]} <= known
    for name in ("pareto", "training", "heads", "matched"):
        assert (real / "reference" / f"{name}.svg").is_file()


def test_the_same_checkpoint_measures_the_same_again(real: Path) -> None:
    wanted = read_plan("tiny", REAL, out=real)
    name = "sft-0.001-seed0@2"
    again = measuring._measured(wanted, measuring.checkpoint(wanted, name))
    assert again == {
        key: value
        for key, value in json.loads(measuring.record_file(wanted, name).read_text()).items()
        if key != "key"
    }
