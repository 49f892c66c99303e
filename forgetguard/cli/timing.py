"""How long a check will take: what it took on this base before, else by a timed pass of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from forgetguard.cache_folder import cache_folder
from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec
from forgetguard.gate.declaration import FilePairs, GateSpec, InlinePairs, TaskPairs
from forgetguard.measures.documents import EvalTasks
from forgetguard.whole_files import write_text

# In plain passes of its prompts through both models, measured on SmolLM2's core set: a check, and
# the search for an `auto` circuit. With the base's part kept it took half (docs/performance.md).
_CHECK, _SEARCH, _KEPT = 3.8, 8.5, 0.5
_START = 8.0  # seconds that no pass takes: imports, tokenizers, hashes
# Of the timed pass: as many tokens as the core set's prompts have, and together the 256 from which
# on a token takes the same time (discovery/cost.py).
_TOKENS, _PROMPTS = 16, 16
_REMEMBERED = 50


def prompts_of(gate: GateSpec) -> tuple[int, int]:
    """How many are drawn first, and at most; of lm-eval tasks without `limit` none are known."""
    source = gate.pairs
    most = source.most if isinstance(source, TaskPairs | FilePairs) else None
    if isinstance(source, EvalTasks):
        count = source.limit or len(source.questions)
    elif isinstance(source, TaskPairs):
        count = source.count
    elif source is None:
        count = 0
    else:
        given = source.pairs if isinstance(source, FilePairs | InlinePairs) else source.prompts
        asked = None if isinstance(source, InlinePairs) else source.count
        count = asked or len(given)
    return count, most or count


def name_of(
    base: CheckpointSpec, options: LoadOptions, gates: Sequence[GateSpec], seed: int | None
) -> str:
    """The name under which times of checks that read the same of a base are kept."""
    said = [base.location, repr(options), seed, sorted(gate.name for gate in gates)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def expected(
    name: str, base: CheckpointSpec, options: LoadOptions, gates: Sequence[GateSpec]
) -> tuple[float, float, str]:
    """Seconds that the next check takes, those of a further one, and what says so."""
    taken = _known().get(name, [])
    if taken:
        again = taken[-1] * (_KEPT if len(taken) == 1 else 1.0)
        return again, again, "from earlier checks of this base here"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        both = 2 * process.submit(seconds_a_prompt, base, options).result()
    passes = {
        gate.name: (_CHECK if gate.has_circuit else 1) + _SEARCH * gate.auto for gate in gates
    }
    seconds = both * sum(prompts_of(gate)[0] * passes[gate.name] for gate in gates)
    more = sorted({one.key for gate in gates for one in gate.limits if one.measure.takes})
    beside = f"; without what {', '.join(more)} take beside a pass" if more else ""
    return _START + seconds, _START + _KEPT * seconds, f"from a timed pass of the base{beside}"


def seconds_a_prompt(base: CheckpointSpec, options: LoadOptions) -> float:
    """Seconds that a prompt takes in a plain pass; loads the base, so in a process of its own."""
    from forgetguard.checkpoints.libraries import import_libraries

    import_libraries()
    import torch

    from forgetguard.checkpoints.placement import ModelPair

    with ModelPair({"base": base}, options) as pair, pair.base.open() as model, torch.no_grad():
        ids = torch.ones((_PROMPTS, _TOKENS), dtype=torch.long, device=model.device)
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            model.base_model(input_ids=ids)[0].sum().item()  # waits for the device
            taken.append(time.perf_counter() - start)
    return min(taken) / _PROMPTS


def remember(name: str, seconds: float) -> None:
    """Keep what a check took, where anything is kept between runs."""
    known = _known()
    entry = [*known.pop(name, []), round(seconds, 1)][-2:]
    newest = dict([*known.items(), (name, entry)][-_REMEMBERED:])
    with contextlib.suppress(OSError, RuntimeError):
        _place().parent.mkdir(parents=True, exist_ok=True)
        write_text(_place(), json.dumps(newest, indent=1))


def _known() -> dict[str, list[float]]:
    try:
        found: object = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # none yet, damaged, nothing is kept
        return {}
    return found if isinstance(found, dict) else {}


def _place() -> Path:
    return cache_folder() / "check_times.json"
