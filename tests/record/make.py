"""Makes the record of the runs on the tiny checkpoints anew: `python tests/record/make.py`."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from record.comparing import arithmetic, save
from record.runs import BASE, TINY, Run, perform, tiny_runs


def provenance() -> dict[str, Any]:
    """The commit and the libraries that a record is made with."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    names = ("torch", "transformers", "peft", "numpy", "scipy")
    return {
        "commit": subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip(),
        "machine": platform.machine(),
        "versions": {name: metadata.version(name) for name in names},
    }


def record(runs: dict[str, Run]) -> dict[str, Any]:
    """Every run, performed; progress by lines on standard error."""
    made = {}
    for name, run in runs.items():
        sys.stderr.write(f"{name} ...\n")
        with tempfile.TemporaryDirectory() as folder:
            made[name] = perform(run, Path(folder))
    return made


if __name__ == "__main__":
    made = provenance() | {"arithmetic": arithmetic(BASE)}
    save(TINY, {"made": made, "runs": record(tiny_runs())})
