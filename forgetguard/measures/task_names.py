"""The names of lm-eval's tasks and metrics, read off its task files in a second or two, so that a
wrong one is told before models are loaded. (Its own index of 14,000 files takes 20 s.) Light: no
torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from forgetguard.measures.documents import EvalTasks

# What a task file calls itself, or is a part of.
_NAMED = re.compile(rb"^[\"']?(task|group|tag)[\"']?: *[\"']?([\w.+-]+)[\"']? *$", re.M)
_LARGE = 1_000_000  # bytes of a file, which then holds data
_METRIC = re.compile(rb"\bmetric[\"']?: *[\"']?([\w.+@-]+)")


@dataclass(frozen=True, slots=True)
class TaskNames:
    """What the task files under a folder say: (task, group or tag, the file) by the name that a
    file gives itself, and the metrics that they list."""

    folder: Path
    files: dict[str, list[tuple[str, Path]]]
    metrics: frozenset[str]

    def holds(self, name: str) -> bool:
        """Whether any file under the folder, but a gate file, has the name in it: templates without
        an ending give tags, and code composes names."""
        word = name.encode()
        files = (
            path for path in self.folder.rglob("*") if path.is_file() and ".gate." not in path.name
        )
        return any(word in path.read_bytes() for path in files if path.stat().st_size < _LARGE)


def own_names() -> TaskNames | None:
    """Those of lm-eval itself; None where it is not installed."""
    found = find_spec("lm_eval")
    if found is None or found.origin is None:
        return None
    return _as_installed(Path(found.origin).parent)


def names_in(folder: Path) -> TaskNames:
    """Those of the files under a folder."""
    files: dict[str, list[tuple[str, Path]]] = {}
    metrics: set[str] = set()
    for path in folder.rglob("*.yaml"):
        text = path.read_bytes()
        metrics.update(name.decode() for name in _METRIC.findall(text))
        for kind, name in _NAMED.findall(text):
            files.setdefault(name.decode(), []).append((kind.decode(), path))
    return TaskNames(folder, files, frozenset(metrics))


_as_installed = cache(names_in)


def unknown_names(asked: EvalTasks) -> Iterator[str]:
    """A sentence on every task and metric of a name that stands in none of the files, so that it
    cannot be meant; none where lm-eval is not installed."""
    own = own_names()
    if own is None or not asked.tasks:
        return
    every = [own] if asked.include is None else [own, names_in(asked.include)]
    tasks = {name for one in every for name in one.files}
    metrics = {name for one in every for name in one.metrics}
    for name in asked.tasks:
        if name not in tasks and not any(one.holds(name) for one in every):
            yield told("task", name, tasks)
    for name in asked.metrics:
        if name not in metrics and not any(one.holds(name) for one in every):
            yield told("metric", name, metrics)


def told(kind: str, name: str, known: Iterable[str]) -> str:
    """That lm-eval knows no such task or metric, with the nearest name or else the next step."""
    close = difflib.get_close_matches(name, [*known], n=1)
    steps = {"task": "include: FOLDER with its YAML", "metric": "one that its tasks' files list"}
    meant = f"did you mean {close[0]!r}?" if close else f"give {steps[kind]}"
    return f"lm-eval knows no {kind} {name!r}: {meant}"
