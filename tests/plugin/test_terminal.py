"""What a run prints: a header, the number of gates, one table, and less of it with -q."""

from __future__ import annotations

import pytest

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


def test_no_progress_is_written_where_there_is_no_terminal(mixed) -> None:
    result = mixed.gate()
    assert "\x1b" not in result.stdout.str() + result.stderr.str()
    assert "capturing tuned" not in result.stdout.str() + result.stderr.str()


def test_progress_is_one_live_line_on_a_terminal(mixed) -> None:
    output = mixed.on_a_terminal("--forgetguard", "base=b", "tuned=t", "good.circuit.yaml")
    assert "\x1b7\x1b[K capturing tuned 1/2\x1b8" in output
    assert "\x1b7\x1b[K\x1b8" in output  # cleared
