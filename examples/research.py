"""Circuits and DCV from Python, on the bundled tiny checkpoints.

python examples/research.py
"""

from __future__ import annotations

import forgetguard as fg


def main() -> None:
    pair = fg.load(base="tiny:base", tuned="tiny:sft")
    for name in ("ioi", "induction", "key_value"):
        capability = fg.capability(name, pairs=64, seed=0)
        circuit = fg.discover(pair.base, capability, method="activation_patching")
        result = fg.vulnerability(pair, capability, circuit)
        dcv, (low, high) = result.circuit.value, result.circuit.interval
        print(f"{name}: {len(circuit.heads)} heads, DCV {dcv:.2f} [{low:.2f}, {high:.2f}]")
        for head, estimate in sorted(result.heads.items(), key=lambda item: -item[1].value):
            print(f"    {head}  {estimate.value:6.2f}")


if __name__ == "__main__":
    main()
