"""What the plugin costs a pytest session that does not use it: pairs of runs, with and without.

    python benchmarks/startup.py

The claim: at most 20 ms, and no import of torch or forgetguard.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15


def seconds(directory: str, *arguments: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "test_nothing.py").write_text("def test_nothing(): pass\n")
        seconds(directory)
        pairs = [
            (seconds(directory), seconds(directory, "-p", "no:forgetguard")) for _ in range(ROUNDS)
        ]
    differences = [1000 * (with_it - without) for with_it, without in pairs]
    ratios = [with_it / without for with_it, without in pairs]
    print(f"with the plugin: {statistics.median(differences):+.0f} ms (median of {ROUNDS} pairs,")
    print(f"from {min(differences):+.0f} to {max(differences):+.0f} ms),", end=" ")
    print(f"ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
