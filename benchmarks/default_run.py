"""What the default run costs: nothing kept yet, the base kept, and a plain pass beside them.

    python benchmarks/default_run.py base=FOLDER tuned=FOLDER [--bundled all] [FILES]

Processor seconds (user and system) of whole processes on one thread. The plain pass is transformers
alone: the clean prompts that the run begins with, through base and tuned, in the gate's batches. It
is run between the gate's runs, and ratios are to it: what else the machine does stretches both.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}


def cpu(command: list[str], folder: str, verdicts: tuple[int, ...] = (0,)) -> tuple[float, str]:
    """Processor seconds of a command that ends with one of `verdicts`, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | ONE_THREAD | {"FORGETGUARD_CACHE": f"{folder}/cache"}
    done = subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode not in verdicts:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def plain(base: str, tuned: str, bundled: str, files: list[str]) -> float:
    """Processor seconds of the forward passes alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from forgetguard.checkpoints.options import LoadOptions
    from forgetguard.checkpoints.spec import resolve
    from forgetguard.gate.bundled import bundled_for, divided
    from forgetguard.gate.schema import load_gate_file
    from forgetguard.gate.stages import as_capability, stages_of

    given = [Path(one) for one in files]
    if not given:
        found = bundled_for(resolve(base, "base"), LoadOptions())
        given, _ = divided(found, core=bundled == "core")
    tokenizer = AutoTokenizer.from_pretrained(base)
    parts = [
        stages_of(spec, as_capability(spec).encoded(tokenizer)).parts[0]
        for spec in map(load_gate_file, given)
    ]
    batches = [batch.clean for part in parts if part.pairs for batch in part.pairs.batches]
    seconds = 0.0
    for folder in (base, tuned):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        began = time.process_time()
        with torch.no_grad():
            for ids in batches:
                model(input_ids=ids, use_cache=False, logits_to_keep=1)
        seconds += time.process_time() - began
    print(f"{len(parts)} circuits, {sum(one.numel() for one in batches)} tokens")
    print(seconds)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", nargs=2, metavar="ROLE=FOLDER")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--bundled", default="core")
    parser.add_argument("--plain", action="store_true", help="only the plain pass, in this process")
    asked = parser.parse_args()
    folders = {
        role: str(Path(path).resolve())
        for role, _, path in (one.partition("=") for one in asked.checkpoints)
    }
    files = [str(Path(one).resolve()) for one in asked.files]
    if asked.plain:
        plain(folders["base"], folders["tuned"], asked.bundled, files)
        return
    roles = [f"{role}={folder}" for role, folder in folders.items()]
    more = ["--bundled", asked.bundled]
    gate = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--forgetguard", *roles]
    gate += files or [f"--forgetguard-bundled={asked.bundled}"]
    beside = [sys.executable, str(Path(__file__).resolve()), *roles, *files, *more, "--plain"]
    with tempfile.TemporaryDirectory() as folder:
        cold, _ = cpu(gate, folder)
        _, said = cpu(beside, folder)
        warm, _ = cpu(gate, folder)
    told, seconds = said.splitlines()[-2:]
    passes = float(seconds)
    print(f"{told}; a plain pass through both models: {passes:.1f} s")
    for name, took in (("nothing kept", cold), ("the base kept", warm)):
        print(f"{name}: {took:.1f} s, {took / passes:.2f} plain passes")


if __name__ == "__main__":
    main()
