"""How long a check will take: by what earlier ones took on this machine, else by a timed pass."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetguard.cache_folder import cache_folder
from forgetguard.checkpoints.adapters import named_base
from forgetguard.checkpoints.described import describe
from forgetguard.checkpoints.local import localise
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.gate.declaration import EvalTasks, FilePairs, GateSpec, InlinePairs, TaskPairs
from forgetguard.whole_files import write_text

# In plain passes of its prompts through both models, as measured on SmolLM2's core set
# (docs/performance.md): with nothing kept between runs, and with the base's part kept. The search
# for an `auto` circuit took 8.5 more.
_FIRST, _AGAIN, _SEARCH = 3.8, 1.9, 8.5
_START = 8.0  # seconds that no pass takes: imports, tokenizers, hashes
# Of the timed pass. The prompts of SmolLM2's core set have 15 tokens; a pass of fewer than 256
# runs at another rate (discovery/cost.py).
_TOKENS, _PROMPTS = 16, 16
_KEPT = 20  # checks


@dataclass(frozen=True, slots=True)
class Work:
    """What the gates of a check measure on a base. `known`: whether they were run on it before, so
    that its part is kept. `parameters`: of the base."""

    what: str
    where: str
    gates: tuple[GateSpec, ...]
    parameters: int
    known: bool

    def passes(self, counts: Mapping[str, int], *, again: bool) -> float:
        """Plain passes of both models, times prompts, of a check that draws so many prompts a
        gate, with the base's part kept or not."""
        return sum(counts.get(gate.name, 0) * _passes(gate, again) for gate in self.gates)


def work_of(
    base: CheckpointSpec, options: LoadOptions, gates: Sequence[GateSpec], seed: int | None
) -> Work:
    """What these gates come to (raises CheckpointError where the base's files cannot be read)."""
    full = named_base(base) if base.kind == "adapter" else base
    tensors = describe(localise(full, options), options).tensors
    where = f"{options.device or options.device_map} {options.dtype}"
    name = json.dumps([base.location, where, seed, sorted(gate.name for gate in gates)])
    what = hashlib.sha256(name.encode()).hexdigest()
    known = any(one["what"] == what for one in _earlier())
    size = sum(math.prod(entry.shape) for entry in tensors.values())
    return Work(what, where, tuple(gates), size or 1, known)


def _passes(gate: GateSpec, again: bool) -> float:
    if not gate.has_circuit:
        return 1.0
    return _AGAIN if again else _FIRST + _SEARCH * gate.auto


def prompts_of(gate: GateSpec) -> tuple[int, int]:
    """How many are drawn first, and at most; of lm-eval tasks without `limit` none are known."""
    source = gate.pairs
    if isinstance(source, TaskPairs):
        return source.count, source.most or source.count
    if isinstance(source, FilePairs):
        count = source.count or len(source.pairs)
        return count, source.most or count
    if isinstance(source, EvalTasks):
        count = source.limit or len(source.questions)
    elif isinstance(source, InlinePairs):
        count = len(source.pairs)
    else:
        count = 0 if source is None else source.count or len(source.prompts)
    return count, count


def expected(
    work: Work, base: CheckpointSpec, options: LoadOptions, tuned: int
) -> tuple[float, float, str]:
    """Seconds that checks of so many checkpoints take, where the first prompts decide and where
    they do not, and what says so."""
    rates = [
        max(one["seconds"] - _START, 1.0) / one["passes"] / one["parameters"]
        for one in _earlier()
        if one["where"] == work.where and 1 / 3 < one["parameters"] / work.parameters < 3
    ]
    basis = "from earlier checks on this machine"
    if not rates:
        basis = "from a timed pass on this machine"
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as one_process:
            timed = one_process.submit(seconds_a_prompt, base, options).result()
        rates = [2 * timed / work.parameters]
    rate = statistics.median(rates[-5:]) * work.parameters
    first, most = (
        work.passes(counts, again=work.known) + (tuned - 1) * work.passes(counts, again=True)
        for counts in ({gate.name: prompts_of(gate)[at] for gate in work.gates} for at in (0, 1))
    )
    return tuned * _START + rate * first, tuned * _START + rate * most, basis


def seconds_a_prompt(base: CheckpointSpec, options: LoadOptions) -> float:
    """Seconds that one prompt takes in a plain pass of the base. Loads it, so in a process of its
    own."""
    from forgetguard.checkpoints.libraries import import_libraries

    import_libraries()
    import torch

    from forgetguard.checkpoints.placement import ModelPair

    with ModelPair({"base": base}, options) as pair, pair.base.open() as model:
        ids = torch.arange(_PROMPTS * _TOKENS).reshape(_PROMPTS, _TOKENS)
        ids = (ids % model.get_input_embeddings().num_embeddings).to(model.device)
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            with torch.no_grad():
                model.base_model(input_ids=ids)[0].sum().item()  # waits for the device
            taken.append(time.perf_counter() - start)
    return min(taken) / _PROMPTS


def remember(work: Work, counts: Mapping[str, int], seconds: float, *, again: bool) -> None:
    """Keep what a check on so many prompts a gate took, where anything is kept."""
    passes = work.passes(counts, again=again)
    if not passes:
        return
    entry = {"what": work.what, "where": work.where, "parameters": work.parameters,
             "passes": passes, "seconds": round(seconds, 3)}  # fmt: skip
    with contextlib.suppress(OSError, RuntimeError):
        _place().parent.mkdir(parents=True, exist_ok=True)
        write_text(_place(), json.dumps([*_earlier(), entry][-_KEPT:], indent=1))


def _earlier() -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # none yet, damaged, nothing is kept
        return []
    return found


def _place() -> Path:
    return cache_folder() / "check_times.json"
