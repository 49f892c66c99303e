"""What models are given: questions to train on, to replay, to be scored on, and prior prompts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle, islice

from examples.studies.reference.plan import Data, Plan
from examples.studies.reference.splitting import split
from examples.studies.tiny_prompts import TASKS_OF_TINY, held_out_pairs, training_texts
from examples.studies.tiny_questions import stream
from forgetguard.capabilities.capability import Capability
from forgetguard.capabilities.tasks import find_task
from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.data.sciknoweval import read_questions

# Added to the prior prompts' seed, so that masks and replay see others than those that are scored.
_MASKS, _REPLAY = 100_003, 1_000_003


def training_questions(data: Data, seed: int) -> list[Question]:
    """What a run of that seed is trained on. Of files, every seed has the same questions.

    Raises:
        SpecificationError: the files cannot be read, or hold too few questions.
    """
    if data.source == "substances":
        return list(islice(stream(data.variant, "training", data.seed + seed), data.train))  # type: ignore[arg-type]
    return _from_files(data)[0]


def scoring_questions(data: Data) -> tuple[list[Question], list[Question]]:
    """Validation and evaluation questions, none of which is trained on.

    Raises:
        SpecificationError: there are fewer than asked for.
    """
    if data.source != "substances":
        return _from_files(data)[1:]
    found = [
        list(islice(stream(data.variant, part, data.seed), count))  # type: ignore[arg-type]
        for part, count in (("validation", data.validation), ("evaluation", data.evaluation))
    ]
    for name, asked, questions in zip(
        ("validation", "evaluation"), (data.validation, data.evaluation), found, strict=True
    ):
        if len(questions) < asked:
            raise SpecificationError(f"data.{name}: {asked}, but only {len(questions)} exist")
    return found[0], found[1]


def _from_files(data: Data) -> tuple[list[Question], list[Question], list[Question]]:
    questions = read_questions(*data.files)
    rest, evaluation = split(questions, data.evaluation, data.seed)
    train, validation = split(rest, data.validation, data.seed)
    if len(train) < data.train:
        raise SpecificationError(
            f"data.train: {data.train}, but beside validation and evaluation {len(train)} of the "
            f"{len(questions)} questions are left: ask for fewer"
        )
    return train[: data.train], validation, evaluation


def replayed_questions(plan: Plan, seed: int) -> list[Question]:
    """Prompts of the prior tasks with their answers, in turn: for the tiny base what it was trained
    on, and so nothing that is scored; for others drawn by another seed than what is scored."""
    streams = [_replay(plan.base, task, _REPLAY + seed) for task in plan.prior.tasks]
    return [next(one) for one in islice(cycle(streams), plan.data.train)] if streams else []


def _replay(base: str, task: str, seed: int) -> Iterator[Question]:
    if base.startswith("tiny:") and task in TASKS_OF_TINY:
        texts: Iterator[tuple[str, str]] = ((one[0], one[1]) for one in training_texts(task, seed))
    else:
        texts = (
            (pair.clean, pair.answer)
            for pair in find_task(task)(random.Random(f"replay {seed}"), _any)
        )
    for prompt, answer in texts:
        yield Question(prompt, answer, frozenset({answer.strip()}), "text")


def _any(_: str, __: str | None = None, /) -> int:
    """A word as one token: replayed text needs no words of equal length."""
    return 1


def prior_capabilities(plan: Plan) -> list[Capability]:
    """The capabilities that must be kept, in the plan's order."""
    prior = plan.prior
    return [_capability(plan.base, task, prior.count, prior.seed) for task in prior.tasks]


def mask_capabilities(plan: Plan) -> list[Capability]:
    """Those whose masks are learned, on other prompts."""
    masks, seed = plan.masks, plan.prior.seed + _MASKS
    return [_capability(plan.base, task, masks.pairs, seed) for task in masks.tasks]


@lru_cache(maxsize=64)  # drawing what was held out takes as long as measuring it
def _capability(base: str, task: str, count: int, seed: int) -> Capability:
    if base.startswith("tiny:") and task in TASKS_OF_TINY:
        return Capability(task, pairs=tuple(islice(held_out_pairs(task, seed), count)))
    find_task(task)
    return Capability(task, task=task, count=count, seed=seed)
