"""The reference suite's presets, the processes that carry a plan out, and the command's options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import examples.studies.reference.__main__ as command
from examples.studies.estimate import A100, QWEN_3B, hours, memory
from examples.studies.reference.plan import PRESETS, Plan, described, presets, read_plan
from examples.studies.reference.workers import Task, carry_out
from forgetguard.errors import SpecificationError
from forgetguard.recipes.training.settings import RECIPES

OUT = Path("out")
FILES = "data.files=questions"


def tiny(*overrides: str) -> Plan:
    return read_plan("tiny", overrides, out=OUT)


# --- presets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets())
def test_every_bundled_preset_can_be_read(name: str) -> None:
    plan = read_plan(name, [FILES], out=OUT)
    assert {run.recipe for run in plan.runs} == set(plan.recipes)


def test_the_tiny_preset_has_every_recipe_three_seeds_and_sweeps_sft_and_rl() -> None:
    plan = tiny()
    assert set(plan.recipes) == set(RECIPES)
    assert len(plan.seeds) == 3
    for recipe in ("sft", "rl"):
        assert len({run.learning_rate for run in plan.runs if run.recipe == recipe}) > 1


def test_a_run_is_a_recipe_at_a_learning_rate_with_a_seed() -> None:
    plan = tiny("seeds=0,5", "recipes=sft,rl", "rl.learning_rates=[1e-4]")
    names = [run.name for run in plan.runs if run.recipe == "rl"]
    assert names == ["rl-0.0001-seed0", "rl-0.0001-seed5"]
    assert len({run.name for run in plan.runs}) == len(plan.runs) == 3 * 2 + 2
    settings = plan.run("rl-0.0001-seed5").settings
    assert (settings.learning_rate, settings.seed) == (1e-4, 5)
    assert settings.output == str(OUT / "runs" / "rl-0.0001-seed5")


def test_a_two_stage_run_starts_from_the_checkpoint_of_its_own_seed() -> None:
    run = tiny().run("sft-rl-0.0003-from120-seed2")
    assert run.after == "sft-0.001-seed2"
    assert run.settings.start == str(OUT / "runs" / run.after / "checkpoint-120")


def test_the_circuit_recipe_holds_the_heads_of_all_circuits() -> None:
    one = tiny("circuits.names=tiny-ioi").run("sft-circuit-0.001-seed0").settings.circuit
    both = tiny("circuits.names=tiny-ioi,tiny-induction").run("sft-circuit-0.001-seed0")
    assert one is not None
    assert both.settings.circuit is not None
    assert set(one) < set(both.settings.circuit)


def test_a_setting_under_all_reaches_only_the_recipes_it_means_something_to() -> None:
    plan = tiny("all.temperature=0.7", "all.max_length=32")
    assert plan.run("rl-0.001-seed0").settings.temperature == 0.7
    assert {run.settings.max_length for run in plan.runs} == {32}


def test_what_is_described_changes_with_the_plan() -> None:
    assert described(tiny()) != described(tiny("data.train=99"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.stepps=3", "sft.stepps unknown 'steps'"),
        ("seed=1", "'seed' 'seeds'"),
        ("seeds", "KEY=VALUE"),
        ("seeds=[0,0]", r"names one twice"),
        ("seeds=zero", r"must be a whole number"),
        ("recipes=sfd", "'sfd' 'sft'"),
        ("sft.steps=-1", "steps 1 -1"),
        ("data.train=many", "data.train 0 'many'"),
        ("data.sauce=a", "data.sauce"),
        ("data.source=web", r"substances or sciknoweval"),
        ("data.source=sciknoweval", "data.files"),
        ("target=2", r"a score from 0 to 1"),
        ("sft-rl.start_steps=31", "60 300 31"),
        ("sft-rl.start_rate=0.5", "sft's"),
        ("recipes=sft-rl", r"sft is not among the recipes"),
        ("circuits.names=tiny-io", "'tiny-ioi'"),
        ("circuits.names=auto-ioi", r"name no heads to hold"),
        ("compared=sft", r"give two groups"),
        (
            "comparison.compared=sft vs ril",
            "comparison.compared ril",
        ),
        ("compared=sft vs ril", "'ril' 'rl'"),
        ("rl.learning_rates=[]", r"give one or more"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(override: str, message: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        tiny(override)
    assert all(word in str(refused.value) for word in message.split())


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecificationError, match=r"'tinny'.*'tiny'"):
        read_plan("tinny", out=OUT)


def test_a_preset_of_ones_own_is_a_file(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    text = (PRESETS / "tiny.yaml").read_text("utf-8")
    own.write_text(text.replace("seeds: [0, 1, 2]", "seeds: [7]"), "utf-8")
    assert read_plan(str(own), out=OUT).seeds == (7,)


def test_every_value_of_the_papers_preset_says_where_it_is_from() -> None:
    lines = (PRESETS / "qwen2.5-3b.yaml").read_text("utf-8").splitlines()
    values = [line for line in lines if re.match(r" *[\w-]+: \S", line)]
    unmarked = [line for line in values if not re.search(r"# \[(P|N|C|us)\]", line)]
    assert len(values) > 50
    assert not unmarked


def test_reading_a_plan_imports_nothing_heavy() -> None:
    code = (
        "import sys, pathlib\nfrom examples.studies.reference import __main__ as command\n"
        "command.read_plan('tiny', out=pathlib.Path('out'))\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the estimate ------------------------------------------------------------------------------


def test_a_run_of_the_papers_size_takes_the_memory_that_hand_arithmetic_gives() -> None:
    plan = read_plan("qwen2.5-3b", [FILES], out=OUT)
    sft = memory(QWEN_3B, plan.run("sft-3e-05-seed0").settings)
    assert sft.trained == 16 * 3_090_000_000
    assert sft.frozen == sft.cache == 0
    assert sft.logits == 3 * 4 * 1024 * 151936 * 4
    assert sft.activations == 4 * 1024 * (36 * 2048 + 8 * (2048 + 11008)) * 2
    rl = memory(QWEN_3B, plan.run("rl-2e-05-seed0").settings)
    assert rl.cache == 2 * 36 * 2 * 128 * 2 * 256 * 1024
    assert rl.frozen == 2 * 3_090_000_000


def test_every_run_of_the_papers_preset_fits_its_gpu_with_a_tenth_to_spare() -> None:
    plan = read_plan("qwen2.5-3b", [FILES], out=OUT)
    most = max(memory(QWEN_3B, run.settings).most for run in plan.runs)
    assert most < 0.9 * A100.memory
    doubled = read_plan("qwen2.5-3b", [FILES, "sft.micro_batch=32"], out=OUT)
    assert memory(QWEN_3B, doubled.run("sft-3e-05-seed0").settings).most > A100.memory


def test_time_grows_with_steps_and_stays_within_days() -> None:
    plan = read_plan("qwen2.5-3b", [FILES], out=OUT)
    longer = read_plan("qwen2.5-3b", [FILES, "rl.steps=300"], out=OUT)
    took = hours(plan.runs, QWEN_3B, A100, tokens=300)
    assert 1 < took < hours(longer.runs, QWEN_3B, A100, tokens=300) < 240


# --- processes ---------------------------------------------------------------------------------


def leave(folder: Path, name: str, _: Any) -> None:
    (folder / name).write_text(str(len(list(folder.iterdir()))))


def refuse(folder: Path, name: str, _: Any) -> None:
    raise SpecificationError(f"{name} cannot be")


def fall(folder: Path, name: str, _: Any) -> None:
    os._exit(3)


def report_threads(folder: Path, name: str, _: Any) -> None:
    import torch

    (folder / name).write_text(f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()}")


@pytest.mark.parametrize("jobs", [0, 2])
def test_a_task_waits_for_the_one_it_rests_on(tmp_path: Path, jobs: int) -> None:
    tasks = [Task("b", leave, after="a", cost=9), Task("a", leave), Task("c", leave, after="gone")]
    assert carry_out(tasks, tmp_path, jobs=jobs) == {}
    assert (tmp_path / "a").read_text() < (tmp_path / "b").read_text()
    assert (tmp_path / "c").exists()


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_failure_stops_only_what_rests_on_it(tmp_path: Path, jobs: int) -> None:
    tasks = [
        Task("x", refuse, cost=9),
        Task("y", leave, after="x"),
        Task("z", leave, after="y"),
        Task("w", leave),
    ]
    told: list[str] = []
    failed = carry_out(tasks, tmp_path, jobs=jobs, say=told.append)
    assert failed == {
        "x": "x cannot be",
        "y": "not started, as x failed",
        "z": "not started, as y failed",
    }
    assert [one.name for one in tmp_path.iterdir()] == ["w"]
    assert "x: FAILED: x cannot be" in told


def test_a_process_that_dies_is_one_failure_and_is_replaced(tmp_path: Path) -> None:
    tasks = [Task("x", fall, cost=9), Task("a", leave), Task("b", leave)]
    failed = carry_out(tasks, tmp_path, jobs=1)
    assert list(failed) == ["x"]
    assert "ended with status 3" in failed["x"]
    assert {one.name for one in tmp_path.iterdir()} == {"a", "b"}


def test_the_threads_of_a_process_are_limited(tmp_path: Path) -> None:
    assert carry_out([Task("a", report_threads)], tmp_path, jobs=1, threads=1) == {}
    assert (tmp_path / "a").read_text() == "1 1"


def stop(line: str) -> None:
    if line.endswith("started"):
        raise KeyboardInterrupt


def sleep(folder: Path, name: str, _: Any) -> None:
    import time

    (folder / name).write_text(str(os.getpid()))
    time.sleep(60)


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    import multiprocessing

    with pytest.raises(KeyboardInterrupt):
        carry_out([Task("a", sleep), Task("b", sleep)], tmp_path, jobs=2, say=stop)
    assert multiprocessing.active_children() == []


# --- the command -------------------------------------------------------------------------------


def prepare(*given: str) -> Callable[[], int]:
    parser = ArgumentParser()
    command.COMMAND.options(parser)
    return command.COMMAND.prepare(parser.parse_args(given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "with a preset of"),
        (["walk"], "no preset 'walk'"),
        (["tiny", "--jobs", "0"], "give 1 or more"),
        (["tiny", "sft.stepps=1"], "'steps'"),
    ],
)
def test_the_command_refuses_what_it_cannot_run(given: Sequence[str], message: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        prepare(*given)
    assert all(word in str(refused.value) for word in message.split())
