"""The gate on real checkpoints as users run it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from warm_python import warm_python

# Other plugins that the environment may hold: not ours to test, and slow to start in workers.
WITHOUT = ("hypothesispytest", "typeguard", "jaxtyping", "anyio", "platformdirs")
# Nor what pytest says where a plugin's modules were imported before it: in a warm python, in a run
# inside this process, and (forgetguard itself) where an editable install lists them.
PLAIN = (*(f"-pno:{name}" for name in WITHOUT), "-Wignore::pytest.PytestAssertRewriteWarning")
QUIET = ("-pno:cacheprovider", *PLAIN)


def run_gate(
    folder: Path,
    *arguments: str,
    python: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Exit status and output of `pytest --forgetguard *arguments` in `folder`.

    Args:
        python: the interpreter; a warm one otherwise.
        environment: variables beside the present ones.
    """
    wanted = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
    }
    done = subprocess.run(
        [python or warm_python(), "-m", "pytest", *QUIET, "--forgetguard", *arguments],
        cwd=folder,
        env=kept | wanted,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout
