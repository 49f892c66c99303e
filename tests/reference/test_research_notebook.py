"""examples/research.ipynb, cell by cell, as a notebook runs it; and the script beside it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from examples import research
from forgetguard.gate import schema

mpl.use("Agg")
pytestmark = pytest.mark.slow
NOTEBOOK = Path(__file__).parents[2] / "examples" / "research.ipynb"


def test_the_cells_run_and_show_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            *body, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
            else:
                exec(compile(ast.Module([last], []), "cell", "exec"), names)
    tables = [one._repr_html_() for one in shown if hasattr(one, "_repr_html_")]
    assert [table.count("<table") for table in tables] == [1] * 4
    lost = names["lost"]
    assert lost.to_frame().value[0] == lost.circuit.value
    assert 0.1 < lost.circuit.low < lost.circuit.high < 0.3  # the gate's own circuit reads 0.21
    saved = schema.load_gate_file(tmp_path / "induction.circuit.yaml")
    assert saved.members == names["circuit"].heads
    mpl.pyplot.close("all")


def test_the_script_tells_the_damage_of_each_circuit(capsys: pytest.CaptureFixture[str]) -> None:
    research.main()
    told = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in told if not line.startswith(" ")] == ["ioi", "induction", "key_value"]
