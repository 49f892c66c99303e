"""How a model does on prompts with completions: what these studies see return, or go."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from examples.studies.drift.sampled import run_each
from examples.studies.tiny_questions import stream
from forgetguard.anatomy.locate import Anatomy
from forgetguard.capabilities.capability import Capability
from forgetguard.checkpoints.placement import Checkpoint
from forgetguard.measures.divergence import Passage, passage, passages_of


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A name, prompts with completions, and, where several completions of one token are right,
    their ids for each prompt."""

    name: str
    prompts: tuple[Passage, ...]
    valid: tuple[Collection[int], ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """right: share of prompts whose completion comes first, token by token. loss: nats a token of
    the completion, mean over prompts."""

    right: float
    loss: float


def score(anatomy: Anatomy, task: Task) -> Score:
    """A model as it is on a task's prompts."""
    right, lost = 0, 0.0
    for rows, logits in run_each(anatomy, task.prompts):
        for row, here in zip(rows, logits.double().log_softmax(-1).cpu(), strict=True):
            targets = torch.tensor(task.prompts[row].targets)
            lost -= float(here[torch.arange(len(targets)), targets].mean())
            first = here.argmax(-1)
            valid = task.valid[row] if task.valid else None
            found = bool((first == targets).all()) if valid is None else int(first[0]) in valid
            right += found
    return Score(right / len(task.prompts), lost / len(task.prompts))


def from_file(path: Path, base: Checkpoint) -> Task:
    """`prompt` and `completion` a line."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return Task(path.stem, tuple(_passage(base, row) for row in rows))


def from_generator(name: str, base: Checkpoint, count: int, seed: int) -> Task:
    """The clean prompts of one of forgetguard's tasks, with their answers."""
    made = Capability(name, task=name, count=count, seed=seed).encoded(base.tokenizer)
    return Task(name, passages_of(made))


def science(base: Checkpoint, count: int) -> Task:
    """The new task of the tiny family, held out; any valid substance is right."""
    found = [one for one, _ in zip(stream("open", "evaluation", 0), range(count), strict=False)]
    rows = [{"prompt": one.prompt, "completion": one.answer} for one in found]
    valid = tuple({_ids(base, f" {word}")[0] for word in one.valid} for one in found)
    return Task("science", tuple(_passage(base, row) for row in rows), valid)


def _passage(base: Checkpoint, row: Mapping[str, str]) -> Passage:
    prompt = _ids(base, row["prompt"], special=True)
    whole = _ids(base, row["prompt"] + row["completion"], special=True)
    return passage(prompt, whole[len(prompt) :])


def _ids(base: Checkpoint, text: str, *, special: bool = False) -> list[int]:
    tokenizer: Any = base.tokenizer
    found: Sequence[int] = tokenizer(text, add_special_tokens=special).input_ids
    return list(found)
