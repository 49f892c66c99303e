"""A session that asked for no gate pays nothing: no import, no output, no collected circuit."""

from __future__ import annotations

import sys

import pytest
from gate_process import PLAIN

PYTHON = sys.executable  # and not a warm one


@pytest.fixture
def plain(project):
    (project.path / "conftest.py").unlink()
    project.circuit("good.circuit.yaml")
    return project


def test_neither_forgetguard_nor_torch_is_imported(plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)
    plain.python(
        "test_plain.py",
        "import sys\n"
        "def test_imports():\n"
        "    assert 'pytest_forgetguard.plugin' in sys.modules\n"
        "    heavy = {'forgetguard', 'torch', 'transformers', 'yaml', 'pydantic', 'numpy'}\n"
        "    assert not heavy & set(sys.modules)\n"
        "    front = {'plugin', 'arguments', 'options', 'hooks', 'keys'}\n"
        "    ours = {name[19:] for name in sys.modules if name.startswith('pytest_forgetguard.')}\n"
        "    assert ours == front\n",
    )
    result = plain.pytester.runpytest_subprocess(*PLAIN)
    result.assert_outcomes(passed=1)


def test_nothing_is_printed_and_no_circuit_is_collected(plain) -> None:
    plain.python("test_plain.py", "def test_it(): pass")
    result = plain.run("-v")
    result.assert_outcomes(passed=1)
    lines = [line for line in result.outlines if not line.startswith(("plugins:", "rootdir:"))]
    assert "forgetguard" not in "\n".join(lines)
    assert "good" not in "\n".join(lines)


def test_half_an_ini_file_asks_for_no_gate(plain) -> None:
    plain.pytester.makeini("[pytest]\nforgetguard_base = b\nforgetguard_device = cpu\n")
    plain.python("test_plain.py", "def test_it(): pass")
    plain.run().assert_outcomes(passed=1)


def test_help_shows_the_options_and_checks_none(plain) -> None:
    result = plain.run("--help", "--forgetguard", "base=b")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*--forgetguard=*KEY=VALUE*", "*--forgetguard-circuits=PATH*"])
