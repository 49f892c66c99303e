"""Every row of the table of exit statuses is held by a test, and every such test names its row."""

from __future__ import annotations

import ast
from pathlib import Path

import exit_table

HERE = Path(__file__).parent


def asked_for() -> dict[str, list[str]]:
    """The rows that tests take their status from, with the tests: `documented("...")`, or of a
    constant of the file, inside a test function."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "documented":
                    (row,) = call.args
                    what = constants[row.id] if isinstance(row, ast.Name) else row.value
                    found.setdefault(what, []).append(f"{path.name}::{function.name}")
    return found


def test_the_table_is_read() -> None:
    found = exit_table.rows()
    assert len(found) > 40
    assert set(found.values()) == {0, 1, 2, 4, 5}


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    assert asked_for().keys() == exit_table.rows().keys()


def test_only_a_run_whose_gates_all_reported_is_0() -> None:
    clean = [what for what, status in exit_table.rows().items() if status == 0]
    assert not [what for what in clean if "skip" in what or "not run" in what]
