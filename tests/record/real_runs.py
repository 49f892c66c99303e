"""The runs of the gate on copies of a real model that are on record.

`python tests/record/real_runs.py` writes the copies and the circuit files beside the model, in
real/, to run the gate on by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from record.copies import with_lora, with_noise, without_head
from record.runs import ROOT, Run

REAL = Path(__file__).with_name("real.json.xz")
MODEL = ROOT / "real" / "smollm2"
COPIES: Mapping[str, Callable[[Path, Path], Path]] = {
    "head zeroed": without_head,
    "noise": with_noise,
    "lora": with_lora,
}
# The heads that exact patching ranks first on this model, and the strongest by attention.
HEADS = {
    "induction": "L18H6, L17H4, L17H5, L17H3, L24H4, L23H3",
    "ioi": "L20H0, L23H3, L29H1, L17H4",
}
LIMITS = {
    "dcv.circuit": 0.10,
    "dcv.head": 0.25,
    "readout.drop": 0.20,
    "accuracy.drop": 0.10,
}


def circuit(task: str, count: int = 64, limits: Mapping[str, float] = LIMITS) -> str:
    """A circuit file of a task, on `count` pairs of seed 0."""
    lines = "\n".join(f"  {key}: {{max: {most}}}" for key, most in limits.items())
    return (
        f"forgetguard: 1\ncapability: {task}\npairs: {{task: {task}, count: {count}, seed: 0}}\n"
        f"readout: logit_diff\ncircuit: [{HEADS[task]}]\nlimits:\n{lines}\n"
    )


def real_run(base: Path, copy: Path) -> Run:
    """The gate on both circuits, a copy against its base."""
    files = {f"real-{task}": circuit(task) for task in HEADS}
    return Run(tuned=str(copy), base=str(base), files=files)


def main() -> None:
    """Write what is not there yet."""
    base = MODEL.resolve()
    for name, make in COPIES.items():
        copy = MODEL.with_name(name.replace(" ", "-"))
        if not copy.exists():
            make(base, copy)
    circuits = MODEL.with_name("circuits")
    circuits.mkdir(exist_ok=True)
    for name, text in (real_run(base, base).files or {}).items():
        (circuits / f"{name}.circuit.yaml").write_text(text)


if __name__ == "__main__":
    main()
