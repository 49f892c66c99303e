"""The gate on the bundled tiny checkpoints: one that passes, one that fails.

    python examples/gate.py

Runs pytest twice, as a CI job would, and succeeds when the verdicts are the expected ones.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

EXPECTED = {"tiny:lora": 0, "tiny:sft": 1}


def gate(tuned: str) -> int:
    """Exit status of the gate: 0 every limit holds, 1 one does not, 4 misuse."""
    arguments = ["--forgetguard", "base=tiny:base", f"tuned={tuned}"]
    print(f"\n$ pytest {' '.join(arguments)}", flush=True)
    with tempfile.TemporaryDirectory() as empty:  # the bundled circuits, and no other tests
        # --tb=no: the table alone. Without it every failed limit shows its evidence.
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=no", *arguments]
        return subprocess.run(command, cwd=empty, check=False).returncode


def main() -> int:
    wrong = []
    for tuned, expected in EXPECTED.items():
        status = gate(tuned)
        if status != expected:
            wrong.append(f"{tuned}: exit status {status}, expected {expected}")
    if wrong:
        print("\nThe gate did not decide as expected:", *wrong, sep="\n  ")
        return 1
    print("\nAs expected: tiny:lora keeps what the base can do, tiny:sft does not. What broke:")
    print("    .venv/bin/pytest --forgetguard base=tiny:base tuned=tiny:sft circuits/tiny-induction.circuit.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
