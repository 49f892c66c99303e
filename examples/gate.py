"""One gate on two bundled fine-tunes of a tiny model, of a circuit and of lm-eval questions beside
it: the adapter passes, the other does not.

    python examples/gate.py

Runs pytest twice, as a CI job would, and succeeds when the verdicts are the expected ones.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CIRCUIT = "circuits/tiny-induction.circuit.yaml"
BEHAVIOUR = "examples/behaviour/tiny.gate.yaml"
EXPECTED = {"tiny:lora": 0, "tiny:sft": 1}


def gate(tuned: str) -> int:
    """Exit status of the gate: 0 every limit holds, 1 one does not, 4 misuse."""
    arguments = ["--forgetguard", "base=tiny:base", f"tuned={tuned}", CIRCUIT, BEHAVIOUR]
    print(f"\n$ pytest {' '.join(arguments)}", flush=True)
    # --tb=no: the table alone. Without it every failed limit shows its evidence.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=no", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode


def main() -> int:
    wrong = []
    for tuned, expected in EXPECTED.items():
        status = gate(tuned)
        if status != expected:
            wrong.append(f"{tuned}: exit status {status}, expected {expected}")
    if wrong:
        print("\nThe gate did not decide as expected:", *wrong, sep="\n  ")
        return 1
    print("\nAs expected: tiny:lora still copies in context, tiny:sft does not. What broke:")
    print(f"    .venv/bin/pytest --forgetguard base=tiny:base tuned=tiny:sft {CIRCUIT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
