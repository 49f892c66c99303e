"""A test project whose gate is measured by a fake: fast, and without torch."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from gate_process import PLAIN
from warm_python import warm_python

# What a run in this process imports first is forgotten after it, and pydantic looks names up in the
# modules of the classes that it reads: imported here, they stay.
import pytest_forgetguard.activation
import pytest_forgetguard.fixtures  # noqa: F401
from forgetguard.gate.schema import load_gate_file

CIRCUIT = """\
forgetguard: 1
capability: a test of one's patience
pairs: {task: ioi, count: 64, seed: 0}
readout: logit_diff
circuit: [L2H2, L0H4]
limits:
"""
FLAG = ("--forgetguard", "base=b", "tuned=t")


class Project:
    """Writes circuit files, runs pytest on them, and reads what the fake saw."""

    def __init__(self, pytester: pytest.Pytester, log: Path) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self._log = log

    def circuit(self, path: str, *, core: bool = False, **limits: float) -> Path:
        """A circuit file; limits as keywords, `dcv_circuit=0.1`. Its name decides its verdict."""
        declared = limits or {"dcv_circuit": 0.1}
        lines = [
            f"  {key.replace('_', '.')}: {{max: {value}}}\n" for key, value in declared.items()
        ]
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("core: true\n" * core + CIRCUIT + "".join(lines))
        return file

    def python(self, path: str, text: str) -> None:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def more_conftest(self, text: str) -> None:
        conftest = self.path / "conftest.py"
        conftest.write_text(f"{conftest.read_text()}\n{text}")

    def run(self, *args: str) -> pytest.RunResult:
        """pytest in this process (an xdist run still has worker processes)."""
        return self.pytester.runpytest_inprocess(*args, *PLAIN)

    def gate_in_subprocess(self, *args: str) -> pytest.RunResult:
        """For runs that end the whole process."""
        return self.pytester.runpytest_subprocess(*FLAG, *args, *PLAIN)

    def gate(self, *args: str, workers: int = 0) -> pytest.RunResult:
        return self.run(*FLAG, *args, *(["-n", str(workers)] if workers else []))

    def on_a_terminal(self, *args: str) -> str:
        """Run pytest in a process of its own whose output is a (pseudo) terminal."""
        ours, theirs = os.openpty()
        command = [sys.executable, "-m", "pytest", *args, *PLAIN]
        with subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=self.path):
            os.close(theirs)
            output = b""
            with contextlib.suppress(OSError):  # Linux says EIO where others say end of file
                while chunk := os.read(ours, 4096):
                    output += chunk
        os.close(ours)
        return output.decode()

    def judged(self) -> list[str]:
        """`circuit limit` of everything that was measured."""
        return [line.removeprefix("judge ") for line in self.log() if line.startswith("judge ")]

    def log(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def results(self, name: str = "out.json") -> dict:
        return json.loads((self.path / name).read_text())

    def words(self, line: str) -> list[str]:
        """What a POSIX shell makes of the line."""
        return shlex.split(line)

    def collected(self, result: pytest.RunResult) -> Sequence[str]:
        """Node ids that `--collect-only -q` listed."""
        return [line for line in result.outlines if "::" in line]


@pytest.fixture(scope="session", autouse=True)
def all_modules_loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """pytester forgets the modules that an inner run imported, while their packages hold on to
    them: whatever inner runs need is imported before the first, lazy imports too."""
    file = tmp_path_factory.mktemp("once") / "any.circuit.yaml"
    file.write_text(CIRCUIT + "  dcv.circuit: {max: 0.1}\n")
    load_gate_file(file)


@pytest.fixture
def project(pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    log = tmp_path / "fake.log"
    monkeypatch.setenv("FORGETGUARD_FAKE_LOG", str(log))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys, "executable", warm_python(models=False))  # of xdist's workers too
    source = Path(__file__).with_name("fake_backend.py").read_text()
    pytester.makeconftest(source)
    return Project(pytester, log)


@pytest.fixture(params=[0, 2], ids=["one process", "two workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """0: no xdist."""
    return request.param
