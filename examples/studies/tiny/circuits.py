"""The bundled circuits of tiny:base: found by patching every head, written beside their prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import forgetguard as fg
from examples.studies.tiny_prompts import TASKS_OF_TINY, held_out_pairs
from forgetguard.gate.declaration import FilePairs, GateSpec, Limit
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.gate.schema import save

# What a fine-tune may lose beyond what the reference lost.
OVER_REFERENCE = Limit("dcv.circuit.over_reference", 0.1)
# Heads are found on other prompts than those that the gate measures on.
_SEED = 1001
_PAIRS = 128


def write_circuits(base: Path, folder: Path, report: Callable[[str], None]) -> None:
    """Find a circuit for every task in the tiny base, and write `tiny-<task>.circuit.yaml` to
    `folder`, where `prompts/tiny-<task>.jsonl` lies already."""
    checkpoint = fg.load(base=base).base
    for task in TASKS_OF_TINY:
        pairs = tuple(islice(held_out_pairs(task, _SEED), _PAIRS))
        circuit = fg.discover(checkpoint, fg.capability(task, pairs=pairs))
        path = folder / f"tiny-{task}.circuit.yaml"
        prompts = folder / "prompts" / f"tiny-{task}.jsonl"
        gated = FilePairs(prompts.resolve(), pairs=tuple(read_prompt_file(prompts)))
        spec = save(replace(circuit.spec(f"tiny-{task}"), pairs=gated), path)
        write_over_reference(spec, folder)
        report(f"{path.name}: {', '.join(map(str, circuit.heads))}")


def write_over_reference(spec: GateSpec, folder: Path) -> GateSpec:
    """Write the same circuit with a limit against a third checkpoint: a file of its own, as one
    with such a limit cannot be run without `reference=`."""
    name = f"{spec.name}-over-reference"
    compared = replace(spec, name=name, limits=(OVER_REFERENCE,), found=None)
    return save(compared, folder / f"{name}.circuit.yaml")
