"""What a run prints: a header, the number of gates, one table, and less of it with -q."""

from __future__ import annotations

import pytest

from pytest_forgetguard import progress

TABLE = [
    "*= forgetguard: base=b tuned=t =*",
    "circuit * limit * measured * allowed * verdict",
    "bad * dcv.circuit  DCV 0.55 [[]0.5, 0.6[]] * <= 0.1 * FAIL",
    "good * dcv.circuit  DCV 0.03 [[]-0.02, 0.08[]] * <= 0.1 * pass",
    "vague * dcv.circuit  no value * <= 0.1 * ABSTAIN",
    "1 pass, 1 fail, 1 abstain",
    "note: 2 of 66 *",
]


@pytest.fixture
def mixed(project):
    for name in ("good", "bad", "vague"):
        project.circuit(f"{name}.circuit.yaml")
    return project


def test_the_header_names_checkpoints_options_and_notes(mixed) -> None:
    mixed.gate().stdout.fnmatch_lines(
        [
            "forgetguard: base=b tuned=t",
            "forgetguard: device default, dtype float32, seed 0",
            "forgetguard: note: vocabulary resized",
            "forgetguard: 3 gates, 3 circuits from the paths given",
        ]
    )


def test_one_table_has_a_row_per_limit(mixed, workers: int) -> None:
    result = mixed.gate(workers=workers)
    result.stdout.fnmatch_lines(TABLE)
    assert sum("= forgetguard:" in line for line in result.outlines) == 1


def test_q_leaves_the_totals(mixed) -> None:
    result = mixed.gate("-q")
    result.stdout.fnmatch_lines(["1 pass, 1 fail, 1 abstain"])
    result.stdout.no_fnmatch_line("circuit * limit *")
    result.stdout.no_fnmatch_line("note:*")


def test_q_leaves_that_the_prompts_of_a_pass_are_fixed(project) -> None:
    project.circuit("good.circuit.yaml")
    project.more_conftest("""
def on_fixed_prompts(*args, plain=fake_verdict):
    from dataclasses import replace
    from forgetguard.measures.samples import Note

    verdict = plain(*args)
    fixed = Note("fixed_prompts", {"kind": "task", "can_be_drawn": True})
    return replace(verdict, notes=(*verdict.notes, fixed))
fake_verdict = on_fixed_prompts
""")
    result = project.gate("-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["1 pass", "note: good: *--forgetguard-prompt-seed N"])
    result.stdout.no_fnmatch_line("*2 of 66*")
    project.gate("-qq").stdout.no_fnmatch_line("note:*")


def test_qq_leaves_nothing_but_problems(mixed) -> None:
    result = mixed.gate("-qq", "-x")
    result.stdout.no_fnmatch_line("*pass*")
    result.stdout.fnmatch_lines(["forgetguard: not run: *"])


def test_many_gates_that_did_not_run_are_counted_unless_v(mixed) -> None:
    for number in range(5):
        mixed.circuit(f"good-{number}.circuit.yaml")
    ids = [f"good-{number}.circuit.yaml::good-{number}::dcv.circuit" for number in range(5)]
    mixed.more_conftest("def pytest_runtestloop(session): return True\n")
    brief = mixed.gate("-k", "good-").outlines
    [line] = [line for line in brief if line.startswith("forgetguard: not run:")]
    assert line == (
        f"forgetguard: not run: 5 gates: {', '.join(ids[:3])} and 2 more (-v names all)"
    )
    whole = mixed.gate("-k", "good-", "-v").outlines
    assert f"forgetguard: not run: {', '.join(ids)}" in whole


def test_a_quick_run_writes_no_progress_where_there_is_no_terminal(mixed) -> None:
    result = mixed.gate()
    assert "\x1b" not in result.stdout.str() + result.stderr.str()
    assert "capturing tuned" not in result.stdout.str() + result.stderr.str()


SLOW = """
from pytest_forgetguard import progress
progress._QUIET = 0.0
"""


@pytest.fixture
def slow(mixed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "_QUIET", 0.0)
    return mixed


def test_a_log_has_a_line_for_a_stage_and_the_letters_go_on_behind_the_file(slow) -> None:
    slow.circuit("good.circuit.yaml", dcv_circuit=0.1, dcv_head=0.1)
    lines = slow.gate("good.circuit.yaml").outlines
    (line,) = [line for line in lines if line.startswith("forgetguard: 0 s: ")]
    assert line == "forgetguard: 0 s: capturing tuned 1/2"
    place = lines.index(line)
    assert lines[place - 1].split() == ["good.circuit.yaml"]
    assert lines[place + 1].split()[:2] == ["good.circuit.yaml", ".."]


@pytest.mark.parametrize("quieter", ["-v", "-q", "-s"])
def test_progress_in_a_log_stands_on_lines_of_its_own(slow, quieter: str) -> None:
    lines = slow.gate(quieter).outlines
    assert lines.count("forgetguard: 0 s: capturing tuned 1/2") == 1
    assert sum("capturing tuned" in line for line in lines) == 1


def test_qq_writes_no_progress(slow) -> None:
    assert "capturing tuned" not in slow.gate("-qq").stdout.str()


def test_of_several_workers_one_tells_of_its_stages(mixed) -> None:
    mixed.more_conftest(SLOW)
    result = mixed.gate_in_subprocess("-n", "2")
    told = [line for line in result.errlines if "capturing tuned" in line]
    assert told == ["forgetguard: 0 s: capturing tuned 1/2"]


def test_progress_is_one_live_line_on_a_terminal(mixed) -> None:
    output = mixed.on_a_terminal("--forgetguard", "base=b", "tuned=t", "good.circuit.yaml")
    assert "\x1b7\x1b[K capturing tuned 1/2\x1b8" in output
    assert "\x1b7\x1b[K\x1b8" in output  # cleared
