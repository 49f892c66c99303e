"""The tests' own warm python: what is forked does and ends as python would."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from warm_python import warm_python


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("import os, sys; print(os.getcwd(), os.environ['GIVEN'], sys.argv[1])", 0, "{} yes more"),
        ("import sys; print('a', flush=True); sys.exit(3)", 3, "a"),
        ("import sys; sys.exit('no')", 1, "no"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 247, ""),
        ("import atexit; atexit.register(print, 'after')", 0, "after"),
        ("import sys; print({'forgetguard', 'torch', 'xdist'} & set(sys.modules))", 0, "set()"),
    ],
)
def test_it_does_and_ends_as_python_does(code: str, status: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [warm_python(models=False), "-c", code, "more"],
        cwd=tmp_path,
        env={"GIVEN": "yes"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == status
    assert done.stdout.strip().endswith(said.format(tmp_path))
