"""`forgetguard check` before anything is judged: what it takes for what, what it asks of pytest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from forgetguard.cli import check, main, timing
from forgetguard.errors import CheckpointError
from forgetguard.gate.bundled import bundled_files
from forgetguard.gate.schema import load_gate_file

GATES = {path.name.partition(".")[0]: load_gate_file(path) for path in bundled_files()}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGETGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    check.COMMAND.options(parser)
    return parser.parse_args(arguments)


def gate_file(place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("forgetguard: 2\nlimits: {drift.weights: {max: 0.5}}\n")
    return place


MISUSE = {
    "nothing": ((), "no checkpoint"),
    "no tuned": (("tiny:base",), "tiny:base"),
    "no such path": (("tiny:base", "./gone"), "tuned=./gone"),
    "not a checkpoint": (("tiny:base", "."), "holds no checkpoint"),
    "a set that is none": (("tiny:base", "tiny:sft", "--circuits", "some"), "'some'"),
    "a seed that is none": (("tiny:base", "tiny:sft", "--prompt-seed", "x"), "--prompt-seed"),
    "a missing gate file": (("tiny:base", "tiny:sft", "gone.gate.yaml"), "gone.gate.yaml"),
    "a page in no folder": (("tiny:base", "tiny:sft", "--html", "no/page.html"), "no/page.html"),
    "results of two in no folder": (
        ("tiny:base", "tiny:sft", "tiny:rl", "--json", "no/a.json"),
        "no/a.tiny-sft.json",
    ),
    "a page that is a folder": (("tiny:base", "tiny:sft", "--html", "."), "--html ."),
    "a page on no disk": (("tiny:base", "tiny:sft", "--html", "/proc/page.html"), "not writable"),
    "a page without a name": (("tiny:base", "tiny:sft", "--html", ""), "--html is empty"),
    "one file for two": (
        ("tiny:base", "tiny:sft", "--html", "one", "--json", "./one"),
        "are one file",
    ),
    "a device that is none": (("tiny:base", "tiny:sft", "--device", "tpu"), "tpu"),
}


@pytest.mark.parametrize("more", [(), ("--estimate",)])
@pytest.mark.parametrize(("arguments", "told"), MISUSE.values(), ids=MISUSE)
def test_what_is_wrong_ends_as_pytest_would_and_is_told_before_anything_is_read(
    arguments: tuple[str, ...],
    told: str,
    more: tuple[str, ...],
    capfd: pytest.CaptureFixture[str],
    folder: Path,
) -> None:
    assert main(["check", *arguments, *more]) == 4
    out, err = capfd.readouterr()
    assert told in err
    assert out == ""


TWO = "forgetguard: 2\nlimits: {drift.weights: {max: 0.5}, rotation: {max: 2}}\n"


@pytest.mark.parametrize(
    ("paths", "limits"),
    [
        (("a.gate.yaml",), ["drift.weights", "rotation"]),
        (("a.gate.yaml::a",), ["drift.weights", "rotation"]),
        (("a.gate.yaml::a::rotation",), ["rotation"]),
        (
            ("a.gate.yaml::a::rotation", "b.gate.yaml::b::drift.weights"),
            ["rotation", "drift.weights"],
        ),
        ((".", "a.gate.yaml::a::rotation"), ["drift.weights", "rotation"] * 2),
    ],
)
def test_of_a_node_id_the_limits_it_names_are_counted(
    paths: tuple[str, ...], limits: list[str], folder: Path
) -> None:
    for name in "ab":
        (folder / f"{name}.gate.yaml").write_text(TWO)
    gates = check._gates(check.read_plan(asked("tiny:base", "tiny:sft", *paths)))
    assert [limit.key for gate in gates for limit in gate.limits] == limits


def test_a_node_id_that_names_no_limit_is_refused(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.gate.yaml").write_text(TWO)
    assert main(["check", "tiny:base", "tiny:sft", "a.gate.yaml::rotation", "--estimate"]) == 4
    assert "a.gate.yaml::a::rotation" in capfd.readouterr().err


def test_a_tuned_of_another_size_is_refused_before_any_is_judged(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = folder / "other"
    other.mkdir()
    from forgetguard.checkpoints.spec import resolve

    base = Path(resolve("tiny:base", "base").location)
    for file in base.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    assert main(["check", "tiny:base", "tiny:sft", str(other)]) == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert "layers 5 against 4" in err


def test_checkpoints_and_gate_files_are_told_apart(folder: Path) -> None:
    gate_file(folder / "gates" / "deep" / "a.gate.yaml")
    (folder / "tuned").mkdir()
    (folder / "tuned" / "config.json").write_text("{}")
    gate_file(folder / "tuned" / "b.gate.yaml")
    plan = check.read_plan(asked("base=tiny:base", "gates", "tuned=tiny:sft", "tiny:lora"))
    assert (plan.base.given, [one.given for one in plan.tuned], plan.paths) == (
        "tiny:base", ["tiny:sft", "tiny:lora"], ("gates",)
    )  # fmt: skip
    assert not check._is_gate_path("tuned")
    assert check._is_gate_path("gone.circuit.yaml::gone::dcv.head")


def test_the_base_itself_is_refused_as_in_pytest() -> None:
    with pytest.raises(CheckpointError, match="the same checkpoint"):
        check.read_plan(asked("tiny:base", "tiny:base", "tiny:lora"))


def test_what_the_gates_lines_recommend_is_taken_by_its_name_in_pytest() -> None:
    both = ("--forgetguard-origin", "--forgetguard-prompt-seed", "3")
    plan = check.read_plan(asked("tiny:base", "tiny:sft", *both))
    given = check.pytest_arguments(plan, plan.tuned[0], Path("r.json"))
    assert {"--forgetguard-origin", "--forgetguard-prompt-seed=3"} <= {*given}


def test_pytest_is_asked_for_what_was_asked_for(folder: Path) -> None:
    file = str(gate_file(folder / "a.gate.yaml"))
    plan = check.read_plan(
        asked("tiny:base", "tiny:sft", file, "--prompt-seed", "7", "--circuits", "all",
              "--json", "out.json", "--html", "page.html", "--dtype", "bfloat16", "--device", "cpu")
    )  # fmt: skip
    assert check.pytest_arguments(plan, plan.tuned[0], Path("r.json")) == [
        "--tb=no",
        "--check-results=r.json",
        *("--forgetguard", "base=tiny:base", "tuned=tiny:sft"),
        "--forgetguard-bundled=all",
        "--forgetguard-json=out.json",
        "--forgetguard-html=page.html",
        "--forgetguard-prompt-seed=7",
        "--forgetguard-dtype=bfloat16",
        "--forgetguard-device=cpu",
        file,
    ]


def test_of_several_each_writes_a_file_of_its_own(folder: Path) -> None:
    (folder / "to").mkdir()
    plan = check.read_plan(asked("tiny:base", "tiny:sft", "tiny:rl", "--json", "to/out.json"))
    files = [
        one
        for spec in plan.tuned
        for one in check.pytest_arguments(plan, spec, Path("r.json"))
        if one.startswith("--forgetguard-json")
    ]
    assert files == [f"--forgetguard-json=to/out.tiny-{name}.json" for name in ("sft", "rl")]


def test_checkpoints_of_one_name_keep_apart() -> None:
    assert check.short_names(["a/step-5", "b/step-5/"]) == {
        "a/step-5": "a-step-5",
        "b/step-5/": "b-step-5",
    }
    assert set(check.short_names(["a/step-5", "b/step-6"]).values()) == {"step-5", "step-6"}


# --- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "most"),
    [("tiny-ioi", 64, 64), ("auto-ioi", 64, 256), ("smollm2-135m-instruct-ioi", 64, 256)],
)
def test_prompts_are_counted_as_declared(name: str, first: int, most: int) -> None:
    assert timing.prompts_of(GATES[name]) == (first, most)


def test_of_a_gate_without_prompts_none_are_counted(folder: Path) -> None:
    assert timing.prompts_of(load_gate_file(gate_file(folder / "a.gate.yaml"))) == (0, 0)


def test_a_second_check_is_expected_to_take_half_and_a_third_as_long_as_the_second() -> None:
    plan = check.read_plan(asked("tiny:base", "tiny:sft"))
    gates = [GATES["tiny-ioi"]]
    name = timing.name_of(plan.base, plan.loading, gates, None)
    assert name != timing.name_of(plan.base, plan.loading, gates, 1)
    assert name != timing.name_of(plan.base, replace(plan.loading, device="cpu"), gates, None)
    timing.remember(name, 100.0)
    assert timing.expected(name, plan.base, plan.loading, gates)[0] == 50
    timing.remember(name, 60.0)
    timing.remember("another", 1.0)
    assert timing.expected(name, plan.base, plan.loading, gates)[0] == 60


def test_nothing_is_remembered_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETGUARD_CACHE", "off")
    timing.remember("a", 1.0)
    assert timing._known() == {}


def test_a_damaged_file_of_times_is_none(folder: Path) -> None:
    (folder / "cache").mkdir()
    for text in ("[1]", "{", "\xff"):
        (folder / "cache" / "check_times.json").write_text(text)
        assert timing._known() == {}


@pytest.mark.parametrize(
    ("cores", "running", "threads"),
    [(2, 0, None), (2, 1, "1"), (2, 7, "1"), (8, 3, None), (8, 5, "3"), (1, 4, None)],
)
def test_torch_gets_the_cores_that_other_work_leaves_where_it_takes_half(
    cores: int,
    running: int,
    threads: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(cores)})
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    reads = iter([running + 1, running, running + 2, running, running + 5])  # what passes is none
    monkeypatch.setattr(check, "_running", lambda: next(reads))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with check._free_cores():
        assert os.environ.get("OMP_NUM_THREADS") == threads
    assert "OMP_NUM_THREADS" not in os.environ
    assert ("OMP_NUM_THREADS" in capsys.readouterr().out) == (threads is not None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with check._free_cores():
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_cores_that_are_not_all_of_the_machine_are_not_counted_as_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr(check, "_running", lambda: 20)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with check._free_cores():
        assert "OMP_NUM_THREADS" not in os.environ


def test_what_runs_beside_is_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            assert max(check._running() for _ in range(20)) >= 1
        finally:
            busy.kill()
