"""The gate session is opened once, at the first gate, and always closed."""

from __future__ import annotations

import sys

import pytest

PYTHON = sys.executable  # and not a warm one


def test_it_opens_once_over_all_circuits_and_closes(project) -> None:
    project.circuit("good.circuit.yaml", dcv_circuit=0.1, dcv_head=0.1)
    project.circuit("bad.circuit.yaml")
    project.python("test_a.py", "def test_it(): pass")
    project.gate()
    assert project.log()[:2] == ["preflight", "open bad good"]
    assert project.log()[-1] == "close"
    assert len(project.log()) == 6


def test_each_worker_opens_and_closes_its_own(project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", PYTHON)  # workers of different seeds of hashes agree
    for number in range(4):
        project.circuit(f"good-{number}.circuit.yaml")
    assert project.gate(workers=2).ret == 0
    log = project.log()
    assert log.count("preflight") == 1
    opened = sum(line.startswith("open") for line in log)
    assert 1 <= opened == log.count("close") <= 2


def test_without_selected_gates_nothing_is_opened(project) -> None:
    project.circuit("good.circuit.yaml")
    project.python("test_plain.py", "def test_plain(): pass")
    project.gate("-k", "plain")
    assert project.log() == ["preflight"]


def test_a_session_that_cannot_be_closed_is_no_pass(project, workers: int) -> None:
    project.more_conftest(
        "def close(self): raise RuntimeError('stuck')\nFakeSession.close = close\n"
    )
    project.circuit("good.circuit.yaml")
    result = project.gate(workers=workers)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["forgetguard: closing the models failed: *stuck*"])
