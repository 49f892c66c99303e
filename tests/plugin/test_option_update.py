"""`--forgetguard-update` and `--forgetguard-update-new-only`: what a baseline is made of."""

from __future__ import annotations

import pytest
from exit_table import documented

BASELINE = "--forgetguard-baseline=accepted.json"
UPDATE = "--forgetguard-update"
NEW_ONLY = "--forgetguard-update-new-only"
OVER = "  dcv.circuit.over_baseline: {max: 0.05}\n"
RECORDED = (
    "`--forgetguard-update` or `-update-new-only`: all is measured and recorded, and every limit "
    "is kept"
)
INCOMPLETE = "an update that did not measure everything; the baseline stays as it was"
UNWRITABLE = "the baseline cannot be written: at the start, or at the end of a run that passed"


def baseline(project) -> bytes | None:
    file = project.path / "accepted.json"
    return file.read_bytes() if file.exists() else None


def entries(project) -> dict:
    return project.results("accepted.json")["circuits"]


def update(project, *args: str, tuned: str = "t", workers: int = 0) -> pytest.RunResult:
    more = ["-n", str(workers)] if workers else []
    return project.run("--forgetguard", "base=b", f"tuned={tuned}", BASELINE, *args, *more)


def test_everything_is_measured_and_recorded(project, workers: int) -> None:
    project.circuit("good-a.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    project.circuit("good-b.circuit.yaml")
    result = update(project, UPDATE, workers=workers)
    assert result.ret == documented(RECORDED)
    assert list(entries(project)) == ["good-a", "good-b"]
    entry = entries(project)["good-a"]
    assert entry["identity"]["base"] == {"weights": "abc"}
    assert entry["identity"]["members"] == ["L0H4", "L2H2"]
    assert entry["recorded"]["tuned"] == "t"
    assert entry["limits"].keys() == {"dcv.circuit", "dcv.head"}
    assert len(entry["measured"]["arrays"]["damage"]["tuned"]["circuit"]) == 16
    result.stdout.fnmatch_lines(["forgetguard: recorded good-a, good-b into the baseline *"])


def test_workers_record_what_one_process_records(project) -> None:
    for name in ("good-a", "good-b", "good-c"):
        project.circuit(f"{name}.circuit.yaml", dcv_circuit=0.1, dcv_head=0.2)
    update(project, UPDATE)
    alone = entries(project)
    update(project, UPDATE, workers=2)
    for name, entry in entries(project).items():
        assert entry["measured"] == alone[name]["measured"]
        assert entry["identity"] == alone[name]["identity"]


def test_an_update_rewrites_measurements_and_never_limits(project) -> None:
    file = project.circuit("good.circuit.yaml")
    text = file.read_text()
    update(project, UPDATE, tuned="first")
    first = entries(project)["good"]["measured"]["arrays"]
    update(project, UPDATE, tuned="second")
    second = entries(project)["good"]["measured"]["arrays"]
    assert second["damage"]["tuned"]["circuit"] != first["damage"]["tuned"]["circuit"]
    assert second["readout"]["base"] == first["readout"]["base"]
    assert file.read_text() == text
    assert "0.1" not in str(entries(project)["good"]["limits"])


def test_a_limit_over_the_baseline_is_recorded_and_no_pass(project, workers: int) -> None:
    file = project.circuit("good.circuit.yaml")
    file.write_text(file.read_text() + OVER)
    result = update(project, UPDATE, "--forgetguard-json=out.json", workers=workers)
    assert result.ret == documented(
        "a limit over the baseline in a run that records it: RECORDED, not judged"
    )
    result.assert_outcomes(passed=1, skipped=1)
    assert "good" in entries(project)
    assert project.results()["results"][1]["outcome"] == "recorded"
    assert project.results()["complete"] is False
    result.stdout.fnmatch_lines(["good *over_baseline*RECORDED"])
    assert update(project, tuned="next", workers=workers).ret == 0


def test_a_python_gate_over_the_baseline_is_recorded_and_no_pass(project) -> None:
    project.circuit("circuits/good.circuit.yaml")
    project.python(
        "test_gate.py",
        "def test_it(forgetguard):\n"
        "    forgetguard.assert_limit('circuits/good.circuit.yaml',\n"
        "                             'dcv.circuit.over_baseline', max=0.1)\n",
    )
    assert update(project, "test_gate.py", UPDATE).ret == 1
    assert "good" in entries(project)
    assert update(project, "test_gate.py").ret == 0


def test_a_limit_that_fails_is_told_and_recorded_all_the_same(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("bad.circuit.yaml")
    result = update(project, UPDATE)
    assert result.ret == documented(
        "the baseline is recorded, and a limit is exceeded all the same"
    )
    assert list(entries(project)) == ["bad", "good"]


@pytest.mark.parametrize("kind", ["broken", "bug", "crash", "absurd"])
def test_one_circuit_that_is_not_measured_leaves_the_baseline_as_it_was(project, kind: str) -> None:
    project.circuit("good.circuit.yaml")
    update(project, UPDATE, tuned="before")
    before = baseline(project)
    project.circuit(f"{kind}.circuit.yaml")
    # A process that dies takes its whole run along, unless it is a worker.
    result = update(project, UPDATE, tuned="after", workers=2 if kind == "crash" else 0)
    assert result.ret == (4 if kind == "absurd" else documented(INCOMPLETE))
    assert baseline(project) == before
    result.stdout.fnmatch_lines(["forgetguard: the baseline * was not written: *"])


def test_a_run_that_stops_early_records_nothing(project) -> None:
    project.circuit("bad.circuit.yaml")
    project.circuit("good.circuit.yaml")
    result = update(project, UPDATE, "-x")
    assert result.ret == documented(INCOMPLETE)
    assert baseline(project) is None


def test_skipped_gates_record_nothing(project) -> None:
    project.circuit("good.circuit.yaml")
    project.more_conftest(
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items: item.add_marker('skip')\n"
    )
    assert update(project, UPDATE).ret == documented(INCOMPLETE)
    assert baseline(project) is None


def test_an_interrupted_run_records_nothing(project) -> None:
    project.circuit("good.circuit.yaml")
    project.circuit("interrupt.circuit.yaml")
    assert project.gate_in_subprocess(BASELINE, UPDATE).ret == documented("interrupted (Ctrl-C)")
    assert baseline(project) is None


def test_recorded_circuits_that_are_gone_are_not_dropped_in_silence(project) -> None:
    project.circuit("good-a.circuit.yaml")
    project.circuit("good-b.circuit.yaml")
    update(project, UPDATE)
    before = baseline(project)
    (project.path / "good-b.circuit.yaml").unlink()
    result = update(project, UPDATE)
    assert result.ret == documented(INCOMPLETE)
    assert baseline(project) == before
    result.stdout.fnmatch_lines(["*was not written: *holds circuit good-b*delete the file*"])


def test_an_update_with_deselected_gates_is_refused_before_measuring(project, workers) -> None:
    project.circuit("good-a.circuit.yaml")
    project.circuit("good-b.circuit.yaml")
    result = update(project, UPDATE, "-k", "good-a", workers=workers)
    assert result.ret == documented("`--forgetguard-update` with gates deselected")
    assert project.judged() == []
    assert baseline(project) is None


def test_new_only_adds_and_leaves_the_rest(project, workers: int) -> None:
    project.circuit("good-a.circuit.yaml")
    update(project, UPDATE, tuned="before")
    before = entries(project)["good-a"]
    project.circuit("good-b.circuit.yaml")
    result = update(project, NEW_ONLY, tuned="after", workers=workers)
    assert result.ret == documented(RECORDED)
    assert entries(project)["good-a"] == before
    assert entries(project)["good-b"]["recorded"]["tuned"] == "after"


def test_new_only_may_be_told_which(project, workers: int) -> None:
    project.circuit("good-a.circuit.yaml")
    update(project, UPDATE)
    project.circuit("good-b.circuit.yaml")
    assert update(project, NEW_ONLY, "-k", "good-b", workers=workers).ret == 0
    assert list(entries(project)) == ["good-a", "good-b"]
    assert "good-a dcv.circuit" not in project.judged()[1:]


def test_new_only_judges_what_is_recorded(project) -> None:
    file = project.circuit("good-a.circuit.yaml")
    file.write_text(file.read_text() + OVER)
    update(project, UPDATE)
    file = project.circuit("good-b.circuit.yaml")
    file.write_text(file.read_text() + OVER)
    result = update(project, NEW_ONLY)
    result.assert_outcomes(passed=3, skipped=1)
    assert "good-a dcv.circuit.over_baseline" in project.judged()


def test_nothing_new_leaves_the_file_alone(project) -> None:
    project.circuit("good.circuit.yaml")
    update(project, UPDATE)
    before = baseline(project)
    result = update(project, NEW_ONLY, tuned="after")
    assert result.ret == 0
    assert baseline(project) == before
    result.stdout.fnmatch_lines(["forgetguard: nothing to add to the baseline *"])


@pytest.mark.parametrize(
    "args", [[UPDATE], [NEW_ONLY], [BASELINE, UPDATE, NEW_ONLY]], ids=["one", "the other", "both"]
)
def test_an_update_that_does_not_say_what_it_wants(project, args: list[str]) -> None:
    project.circuit("good.circuit.yaml")
    result = project.gate(*args)
    assert result.ret == documented("an update without a baseline, or both updates at once")
    assert project.judged() == []


@pytest.mark.parametrize("target", ["nowhere/accepted.json", "taken"])
def test_a_baseline_that_cannot_be_written_at_the_start(project, target: str) -> None:
    project.circuit("good.circuit.yaml")
    (project.path / "taken").mkdir()
    result = project.gate(f"--forgetguard-baseline={target}", UPDATE)
    assert result.ret == documented(UNWRITABLE)
    assert project.log() == []


def test_a_baseline_that_cannot_be_written_at_the_end(project, workers: int) -> None:
    (project.path / "out").mkdir()
    project.circuit("good.circuit.yaml")
    project.python("test_remove.py", "import shutil\ndef test_it(): shutil.rmtree('out')\n")
    result = project.gate("--forgetguard-baseline=out/accepted.json", UPDATE, workers=workers)
    assert result.ret == documented(UNWRITABLE)


def test_collect_only_records_nothing(project) -> None:
    project.circuit("good.circuit.yaml")
    assert update(project, UPDATE, "--collect-only").ret == documented(
        "`--collect-only`: nothing is measured, recorded or written"
    )
    assert baseline(project) is None


def test_the_ini_file_cannot_ask_for_an_update(project) -> None:
    project.circuit("good.circuit.yaml")
    project.pytester.makeini("[pytest]\nforgetguard_update = true\n")
    update(project)
    assert baseline(project) is None
