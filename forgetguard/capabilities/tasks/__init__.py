"""The tasks by name: each an endless, seeded stream of prompt pairs for one capability.

A task is a function `generate(rng, fits) -> Iterator[PromptPair]`. `fits(word)` is how many tokens
of the tokenizer at hand " word" is in place, 0 where it cannot be used; `fits(word, before)` asks
the same of `word` right after the text `before` (words.Fits). Words that take one another's place
are filtered with it once, before the first pair is drawn, so that they have equally many tokens.

The bundled tasks are TASKS. Other distributions add theirs through the entry point group
`forgetguard.tasks`. Light: no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import cast

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks import (
    agreement,
    arithmetic,
    docstring,
    fact_recall,
    greater_than,
    greater_than_year,
    in_context_mapping,
    indirect_object,
    induction,
    key_value,
    refusal,
    repetition,
    symbol_binding,
)
from forgetguard.capabilities.tasks.words import Fits
from forgetguard.errors import CapabilityError

Task = Callable[[random.Random, Fits], Iterator[PromptPair]]

ENTRY_POINTS = "forgetguard.tasks"

TASKS: dict[str, Task] = {
    "induction": induction.generate,
    "ioi": indirect_object.generate,
    "key_value": key_value.generate,
    "greater_than": greater_than.generate,
    "fact_recall": fact_recall.generate,
    "agreement": agreement.generate,
    "symbol_binding": symbol_binding.generate,
    "symbol_binding_text": symbol_binding.generate_text,
    "docstring": docstring.generate,
    "in_context_mapping": in_context_mapping.generate,
    "in_context_rule": in_context_mapping.generate_rule,
    "arithmetic": arithmetic.generate,
    "greater_than_year": greater_than_year.generate,
    "refusal": refusal.generate,
    "refusal_plain": refusal.generate_plain,
    "repetition": repetition.generate,
}


def task_names() -> tuple[str, ...]:
    """The names of the bundled tasks, then of other distributions' (which are not loaded)."""
    added = sorted(_entry_points().names - TASKS.keys())
    return (*TASKS, *added)


def find_task(name: str) -> Task:
    """The task of that name; one of another distribution is loaded now.

    Raises:
        CapabilityError: there is none, several distributions give one of that name, one gives a
            bundled task's name to its own, or it cannot be loaded.
    """
    given = tuple(_entry_points().select(name=name))
    if name in TASKS:
        if given:
            raise CapabilityError(
                f"task {name!r} is bundled with forgetguard, and {_origin(given[0])} gives its "
                f"name to another; rename that entry point of group {ENTRY_POINTS}"
            )
        return TASKS[name]
    if not given:
        raise CapabilityError(f"unknown task {name!r}; there are {', '.join(task_names())}")
    if len(given) > 1:
        raise CapabilityError(
            f"task {name!r} is given by {' and by '.join(map(_origin, given))}; uninstall or "
            f"rename one of these entry points of group {ENTRY_POINTS}"
        )
    return _load(given[0])


@cache
def _entry_points() -> EntryPoints:
    return entry_points(group=ENTRY_POINTS)  # it reads the metadata of every distribution


def _load(point: EntryPoint) -> Task:
    try:
        task = point.load()
    except Exception as error:  # whatever a user's module may raise while it is imported
        raise CapabilityError(
            f"task {point.name!r} of {_origin(point)} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(task):
        raise CapabilityError(
            f"task {point.name!r} of {_origin(point)} must be a function (rng, fits) that yields "
            f"prompt pairs, got {type(task).__name__}"
        )
    return cast(Task, task)


def _origin(point: EntryPoint) -> str:
    distribution = "unknown" if point.dist is None else point.dist.name
    return f"distribution {distribution} ({point.name} = {point.value})"
