"""Makes a record anew: `python tests/record/make.py tiny`, or `real` (after `make real`)."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from record.comparing import arithmetic, save
from record.real_runs import COPIES, MODEL, REAL, real_run
from record.runs import BASE, ROOT, TINY, Run, perform, tiny_runs


def provenance(base: Path) -> dict[str, Any]:
    """The package's commit, the libraries, the base's weights, and what the machine computes."""
    # The last commit that touched what is measured with.
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%H", "--", "forgetguard", "plugins"]
    names = ("torch", "transformers", "peft", "numpy", "scipy")
    weights = (base / "model.safetensors").read_bytes()
    return {
        "commit": subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip(),
        "machine": platform.machine(),
        "versions": {name: metadata.version(name) for name in names},
        "weights": hashlib.sha256(weights).hexdigest(),
        "arithmetic": arithmetic(base),
    }


def record(runs: dict[str, Run]) -> dict[str, Any]:
    """Every run, performed; progress by lines on standard error."""
    made = {}
    for name, run in runs.items():
        sys.stderr.write(f"{name} ...\n")
        with tempfile.TemporaryDirectory() as folder:
            made[name] = perform(run, Path(folder))
    return made


def main() -> None:
    """Make the record that the command line names."""
    if sys.argv[1] == "tiny":
        save(TINY, {"made": provenance(BASE), "runs": record(tiny_runs())})
    else:
        base = MODEL.resolve()
        with tempfile.TemporaryDirectory() as folder:
            copies = {name: make(base, Path(folder) / name) for name, make in COPIES.items()}
            runs = record({name: real_run(base, copy) for name, copy in copies.items()})
        save(REAL, {"made": provenance(base), "runs": runs})


if __name__ == "__main__":
    main()
