"""`forgetguard train`: one recipe on one base, from a settings file, on one device or many."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from forgetguard.checkpoints.preflight import check
from forgetguard.checkpoints.spec import resolve
from forgetguard.cli.command import DONE, INTERRUPTED, Job, adder, command, say, whole_imports
from forgetguard.cli.progress import progress_bar
from forgetguard.cli.values import needs_module, read_whole
from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question
from forgetguard.recipes.training.run_folder import full_base
from forgetguard.recipes.training.settings import REINFORCED, TrainingSettings, read_settings
from forgetguard.recipes.training.surroundings import is_main

_USAGE = "forgetguard train SETTINGS.yaml [KEY=VALUE ...] --data FILE"
MADE_UP = "tiny:substances"
_COUNT = 3200  # of the made-up questions, as in the reference suite


def _options(parser: ArgumentParser) -> None:
    add = adder(parser)
    parser.usage = f"{_USAGE} [--data FILE ...] [--replay FILE ...]"
    add(
        "tokens",
        "SETTINGS.yaml KEY=VALUE",
        "a settings file (docs/recipes.md), and any of its values changed: steps=100, "
        "recipe=sft-kl, kl_weight=0.5, adapter.rank=8",
        nargs="*",
    )
    made_up = f"{MADE_UP}: the made-up science task of the tiny family"
    data = f"JSONL questions in the SciKnowEval format, or a folder of them; repeatable. {made_up}"
    add("--data", "FILE", data, many=True)
    add("--replay", "FILE", "old questions (sft-replay)", many=True)
    add("--count", "N", "the first N questions only")


def _prepare(asked: Namespace) -> Job:
    file, *overrides = asked.tokens or [""]
    if not file.endswith((".yaml", ".yml")):
        raise SpecificationError(f"write {_USAGE}; the settings file comes first, got {file!r}")
    settings = read_settings(Path(file), overrides)
    if not asked.data:
        raise SpecificationError(f"--data is missing: give JSONL files, or {MADE_UP}")
    needs_module("trl", "training", "recipes")
    count = None if asked.count is None else read_whole("--count", asked.count)
    train = _questions(asked.data, count, settings.seed)
    replay = _questions(asked.replay, None, settings.seed)
    if replay and settings.recipe != "sft-replay":
        raise SpecificationError(f"--replay: {settings.recipe} replays nothing: use sft-replay")
    base = full_base(settings.base)
    start = None if settings.start is None else resolve(settings.start, "start")
    check(base, start, allow_same=True)  # a start may be the base
    return lambda: _train(settings, train, replay)


def _questions(given: Sequence[str], count: int | None, seed: int) -> list[Question]:
    """Raises SpecificationError."""
    from forgetguard.recipes.data.sciknoweval import read_questions
    from forgetguard.recipes.data.substances import training_questions

    if MADE_UP not in given:
        return read_questions(*given)[:count] if given else []
    if len(given) > 1:
        raise SpecificationError(f"--data {MADE_UP} cannot be mixed with files: give one of them")
    return list(islice(training_questions(seed), count or _COUNT))


def _train(
    settings: TrainingSettings, train: Sequence[Question], replay: Sequence[Question]
) -> int:
    with whole_imports():
        from forgetguard.recipes.training.rl import train_rl
        from forgetguard.recipes.training.sft import train_sft
    try:
        with progress_bar() as bar:
            if settings.recipe in REINFORCED:
                final = train_rl(settings, train, progress=bar)
            else:
                final = train_sft(settings, train, replay=replay, progress=bar)
    except KeyboardInterrupt:
        say(
            "forgetguard train: interrupted; whole checkpoints are kept, and the same command goes "
            "on from the last"
        )
        return INTERRUPTED
    if is_main():
        say(f"trained: {final}")
    return DONE


COMMAND = command("train", _options, _prepare)
