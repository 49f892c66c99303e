"""The logs of a run, an object a line: its losses, and for reinforcement what the completions of
every update earned and how far the model is from the base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from forgetguard.whole_files import write_text

LOSSES, ROLLOUTS = "losses.jsonl", "rollouts.jsonl"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One update. All but the loss describe its batch of completions, over all devices, as it was
    sampled; with several updates on a batch they are the same for each of these.

    Attributes:
        step: the update, from 1.
        batch: the batch of completions it learned from, from 1.
        reward: mean over completions.
        equal_groups: share of prompts whose completions all earned the same. Their advantages are
            0: there was nothing to learn from them.
        kl_forward: KL(base || model), in nats per token: exact over the vocabulary at each position
            of the completions, of the model that sampled them; temperature 1, whatever theirs was.
            Its positions are those that the model visits, not the base: it is no estimate of the KL
            between distributions of whole completions.
        kl_reverse: KL(model || base), likewise. At temperature 1, `kl_reverse` x
            `completion_tokens` estimates, without bias, the KL between whole completions.
        completion_tokens: mean length, the end of sequence included.
        unfinished: share of completions cut off at `completion_length`.
        loss: as the optimiser saw it, before any clipping of gradients. On a fresh batch every
            ratio is 1, and it is near 0 by construction: it says nothing about progress.
    """

    step: int
    batch: int
    reward: float
    equal_groups: float
    kl_forward: float
    kl_reverse: float
    completion_tokens: float
    unfinished: float
    loss: float


def read_rollouts(run: Path) -> list[Rollout]:
    """The log of a run, in order; empty where there is none. What follows a line that a kill cut
    short is left out."""
    names = {field.name for field in fields(Rollout)}
    whole = takewhile(lambda one: names <= one.keys(), read_records(run / ROLLOUTS))
    return [Rollout(**{key: one[key] for key in names}) for one in whole]


def read_records(file: Path) -> list[dict[str, Any]]:
    """The objects of a log, one a line, up to a line that a kill cut short; none where there is no
    log."""
    records = []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            records.append(json.loads(line))
    except (FileNotFoundError, ValueError):
        pass
    return records


def append_record(file: Path, record: Mapping[str, Any]) -> None:
    """Add a line (raises OSError)."""
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")


def cut_logs(run: Path, step: int) -> None:
    """Take off the updates after `step`, which a resumed run does again (raises OSError)."""
    for file in (run / LOSSES, run / ROLLOUTS):
        if file.exists():
            kept = [json.dumps(one) + "\n" for one in read_records(file) if one["step"] <= step]
            write_text(file, "".join(kept))
