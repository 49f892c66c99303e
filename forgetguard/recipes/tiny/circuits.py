"""The bundled circuits of tiny:base: found by patching every head, written beside their prompts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from forgetguard.anatomy.locate import locate
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.tasks import TASKS
from forgetguard.checkpoints.fingerprint import fingerprint
from forgetguard.checkpoints.loading import load_model, load_tokenizer
from forgetguard.checkpoints.spec import resolve
from forgetguard.discovery.activation_patching import activation_patching
from forgetguard.gate.prompt_files import read_prompt_file
from forgetguard.gate.schema import CircuitSpec, FilePairs, Fits, Limit, save
from forgetguard.recipes.tiny.episodes import held_out_pairs

# Heads are found on other prompts than those that the gate measures on.
_SEED = 1001
_PAIRS = 128
# DESIGN's example limits; 0.10 for accuracy, because 64 pairs cannot show a drop below 0.05.
_LIMITS = {"dcv.circuit": 0.10, "dcv.head": 0.25, "accuracy.drop": 0.10}


def write_circuits(base: Path, folder: Path, report: Callable[[str], None]) -> None:
    """Find a circuit for every task in the tiny base, and write `tiny-<task>.circuit.yaml` to
    `folder`, where `prompts/tiny-<task>.jsonl` lies already."""
    spec = resolve(str(base), "base")
    model, tokenizer = load_model(spec), load_tokenizer(spec)
    anatomy = locate(model)
    fits = Fits(
        architecture=type(model).__name__,
        layers=anatomy.n_layers,
        heads=anatomy.site(0).n_heads,
        weights=fingerprint(spec).weights,
    )
    for task in TASKS:
        pairs = tuple(islice(held_out_pairs(task, _SEED), _PAIRS))
        capability = Capability(task, pairs=pairs)
        found = activation_patching(anatomy, capability.encoded(tokenizer))
        heads = found.circuit()
        path = folder / f"tiny-{task}.circuit.yaml"
        prompts = folder / "prompts" / f"tiny-{task}.jsonl"
        save(
            CircuitSpec(
                name=f"tiny-{task}",
                capability=task,
                pairs=FilePairs(prompts.resolve(), pairs=tuple(read_prompt_file(prompts))),
                readout="logit_diff",
                heads=heads,
                limits=tuple(Limit(key, maximum) for key, maximum in _LIMITS.items()),
                fits=fits,
                found={
                    "method": found.method,
                    "pairs": _PAIRS,
                    "seed": _SEED,
                    "scores": {str(head): round(found.scores[head], 3) for head in heads},
                    "share_of_loss": round(found.curve[len(heads) - 1], 3),
                },
            ),
            path,
        )
        report(f"{path.name}: {', '.join(map(str, heads))}")
