"""lm-eval (EleutherAI's Language Model Evaluation Harness) on an open model: its tasks, its prompts
and its metrics, document by document.

Everything that is asked and scored is lm-eval's own; what is ours is which documents are drawn, the
pairing of two models' rows (by task, metric, filter and document, with equal prompts), and that
nothing is left behind: random states, the tokenizer and the model are as they were. Its response
cache is never used: its keys hold the request and not the model, so that a second model is given
the first one's answers. What the base answers is kept between runs by gate/kept.py, under what the
base computes with.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgetguard.capabilities.pairs import Prompt
from forgetguard.checkpoints.quiet import own_randomness
from forgetguard.errors import ForgetguardError, MeasurementError
from forgetguard.measures.documents import (
    CHANCE,
    CONFIDENCE,
    LIKELIHOOD,
    SCORE,
    Documents,
    EvalTasks,
    Scores,
    document,
)
from forgetguard.measures.measure import Opened
from forgetguard.measures.registry import described
from forgetguard.measures.samples import BASE, FloatArray, Key
from forgetguard.measures.saved import Saved, digest
from forgetguard.measures.task_names import own_names, told, unknown_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTALL = "pip install 'forgetguard[lm-eval]'"
# What simple_evaluate seeds Python, numpy, torch and the choice of few-shot examples with.
_SEEDS = (0, 1234, 1234, 1234)
_ROUNDING = 1e-9  # by which a score may be outside 0 to 1


# --- tasks and documents -------------------------------------------------------------------------


def documents(asked: EvalTasks, tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> Documents:
    """The tasks that are asked for, with their data, and the documents that are drawn.

    Raises:
        MeasurementError: lm-eval is not installed, does not know a task, cannot read its data or
            scores no document of it by itself; or a tokenizer has no chat template where it is
            needed. One line.
    """
    for role, tokenizer in tokenizers.items():
        if asked.chat_template and not getattr(tokenizer, "chat_template", None):
            raise MeasurementError(
                f"lm_eval: the tokenizer of {role} has no chat template: leave out "
                "chat_template: true, or give the checkpoint one"
            )
    with _quiet(), own_randomness():
        try:
            import lm_eval  # noqa: F401
        except ImportError as error:
            raise MeasurementError(f"lm-eval cannot be imported ({error}): {INSTALL}") from None
        tasks = _load(asked)
        left_out = tuple(one for name, task in tasks.items() for one in _aggregates(name, task))
        units: list[Prompt] = []
        drawn = {}
        for name, task in tasks.items():
            _check_metrics(name, task, asked.metrics)
            with _one_line(f"the documents of task {name!r}"):
                rows = list(task.eval_docs)
                places = _draw(len(rows), asked, name)
                drawn[name] = places
                units += [_unit(name, task, place, rows[place]) for place in places]
    return Documents(asked, tasks, drawn, tuple(units), dict(tokenizers), left_out)


def _load(asked: EvalTasks) -> dict[str, Any]:
    with _one_line("the task files"):
        manager = _manager(asked)
    found: dict[str, Any] = {}
    for name in asked.tasks:
        with _one_line(f"task {name!r}"):
            found |= manager.load([_with_whole_paths(manager, name)])["tasks"]
    if asked.questions:
        if asked.questions_name in found:
            raise MeasurementError(
                f"lm_eval: the questions and a task are both called {asked.questions_name!r}: "
                "rename the questions' file"
            )
        with _one_line("the questions"):
            found |= manager.load([_of_questions(asked)])["tasks"]
    return found


def _manager(asked: EvalTasks) -> Any:
    """lm-eval's index of all tasks that are asked for. Its own 14,000 files take 20 s to index:
    where each name is that of one task of one file, only that file's folder is.

    Raises:
        MeasurementError: there is no such task.
    """
    from lm_eval.tasks import TaskManager

    include = [] if asked.include is None else [asked.include]
    manager = TaskManager(include_path=include, include_defaults=False)
    missing = {*asked.tasks} - {*manager.all_tasks}
    if not missing:
        return manager
    for wrong in unknown_names(asked):
        raise MeasurementError(wrong)
    own = own_names()
    found = [own.files.get(name, []) if own else [] for name in sorted(missing)]
    alone = all([kind for kind, _ in one] == ["task"] for one in found)
    folders = dict.fromkeys(path.parent for one in found for _, path in one) if alone else ()
    manager = TaskManager(include_path=[*folders, *include], include_defaults=False)
    if not missing <= {*manager.all_tasks}:  # a group, a tag, or named in another way
        manager = TaskManager(include_path=include)
        for name in sorted(missing - {*manager.all_tasks}):
            raise MeasurementError(told("task", name, manager.all_tasks))
    return manager


def _with_whole_paths(manager: Any, name: str) -> Any:
    """The task's name, or its configuration where that names data files relative to its own file:
    lm-eval would look for them in the working directory."""
    from lm_eval.tasks._yaml_loader import load_yaml

    file = manager.task_index[name].yaml_path
    if file is None:
        return name
    config = load_yaml(file, resolve_func=True)
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if not isinstance(config.get("task"), str) or files is None:
        return name
    whole = _whole_path(files, Path(file).parent)
    return {**config, "dataset_kwargs": {**config["dataset_kwargs"], "data_files": whole}}


def _whole_path(files: Any, folder: Path) -> Any:
    if isinstance(files, Mapping):
        return {split: _whole_path(one, folder) for split, one in files.items()}
    if isinstance(files, list):
        return [_whole_path(one, folder) for one in files]
    beside = folder / str(files)
    return str(beside.resolve()) if beside.exists() else files


def _of_questions(asked: EvalTasks) -> dict[str, Any]:
    """A task of lm-eval over rows of one's own: multiple choice where they have options, else
    whether greedy decoding gives the answer."""
    space = "" if asked.chat_template else " "  # as lm-eval puts it before options
    rows = [
        {
            "question": one.question,
            "answer": one.answer if one.options else space + one.answer,
            "options": list(one.options),
        }
        for one in asked.questions
    ]

    def data(**_: object) -> Any:
        import datasets

        return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})

    task = {
        "task": asked.questions_name,
        "custom_dataset": data,
        "test_split": "test",
        "doc_to_text": "question",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    if asked.questions[0].options:
        return task | {"output_type": "multiple_choice", "doc_to_choice": "options"}
    return task | {"output_type": "loglikelihood"}


def _aggregates(name: str, task: Any) -> Iterator[str]:
    """The metrics of a task that are no mean over its documents."""
    from lm_eval.api.metrics import mean

    for metric, aggregation in task.aggregation().items():
        if aggregation is not mean:
            yield f"{name} {metric}"


def _check_metrics(name: str, task: Any, wanted: Sequence[str]) -> None:
    """Raises MeasurementError: nothing of the task can be paired, or not what is asked for."""
    known = task.aggregation()
    together = {one.removeprefix(f"{name} ") for one in _aggregates(name, task)}
    able = sorted({*known} - together)
    if not able or (known and {*wanted} & together):
        which = sorted({*wanted} & together) or sorted(together)
        others = f"gate {', '.join(able)} of it" if able else "gate another task"
        raise MeasurementError(
            f"lm-eval's {', '.join(which)} of task {name!r} is of all documents together, not a "
            f"number for each, so that two models cannot be paired on it: {others}"
        )


def _draw(count: int, asked: EvalTasks, name: str) -> tuple[int, ...]:
    if asked.limit is None or asked.limit >= count:
        return tuple(range(count))
    text = f"{asked.seed}\x1f{name}".encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    return tuple(sorted(random.Random(seed).sample(range(count), asked.limit)))


_PROMPTED_BY = (
    "doc_to_text", "doc_to_target", "doc_to_choice", "description", "num_fewshot", "output_type",
    "target_delimiter", "fewshot_delimiter", "generation_kwargs", "metric_list", "filter_list",
)  # fmt: skip


def _unit(name: str, task: Any, place: int, row: Any) -> Prompt:
    content = [{key: task.get_config(key) for key in _PROMPTED_BY}, row]
    text = json.dumps(content, sort_keys=True, default=lambda one: getattr(one, "__name__", ""))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return document(name, place, digest, str(task.doc_to_text(row)))


# --- running a model -----------------------------------------------------------------------------


def scores(model: Opened) -> Scores:
    """lm-eval's scores of an open model on the documents.

    Raises:
        MeasurementError: lm-eval fails on it, or a score is no number from 0 to 1.
    """
    given = model.documents
    if given is None:
        raise MeasurementError("lm_eval measures need the tasks of a gate file: lm_eval: {...}")
    running = _one_line(f"running its tasks on {model.role}")
    with _quiet(), own_randomness(), _not_tied(model.anatomy.model), running:
        rows = _evaluate(given, model)
    places = {
        pair: at
        for at, pair in enumerate((name, one) for name, all in given.drawn.items() for one in all)
    }
    prompts: dict[int, str] = {}
    found: dict[str, dict[str, FloatArray]] = {
        kind: {} for kind in (SCORE, LIKELIHOOD, CHANCE, CONFIDENCE)
    }
    for name, task in given.tasks.items():
        for row in rows[name]:
            at = places[name, int(row["doc_id"])]
            prompts[at] = row["prompt_hash"]
            for kind, subject, value in _scored(name, task, row, given.asked.metrics):
                found[kind].setdefault(subject, np.zeros(len(places)))[at] = value
    subjects = [one.split(" ") for one in found[SCORE]]
    known = {one[0] for one in subjects}
    missing = [one for one in given.tasks if one not in known]
    known = {part.removeprefix("1-") for one in subjects for part in one[1:]}
    missing += [one for one in given.asked.metrics if one not in known]
    if missing or len(prompts) < len(places):
        raise MeasurementError(
            f"lm-eval scored nothing of {', '.join(missing) or 'some documents'}: every task "
            "needs one of metrics:, and each of those a task"
        )
    return Scores(found, tuple(prompts[at] for at in range(len(places))), model.role)


def _evaluate(given: Documents, model: Opened) -> Mapping[str, list[dict[str, Any]]]:
    import torch
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    own = given.tokenizers.get(model.role, given.tokenizers[BASE])
    tokenizer = copy.deepcopy(own)  # lm-eval gives it a padding token
    wrapped = HFLM(
        pretrained=model.anatomy.model, tokenizer=tokenizer, batch_size=given.asked.batch_size
    )
    if model.saved is not None:
        _keep_answers(wrapped, model.saved)
    random.seed(_SEEDS[0])
    np.random.seed(_SEEDS[1])
    torch.manual_seed(_SEEDS[2])
    for task in given.tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_SEEDS[3])
    chat = given.asked.chat_template
    found = evaluate(
        lm=wrapped,
        task_dict={"tasks": dict(given.tasks)},
        samples={name: list(places) for name, places in given.drawn.items()},
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
        confirm_run_unsafe_code=False,
    )
    rows: Mapping[str, list[dict[str, Any]]] = found["samples"]
    return rows


_ASKED_BY = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def _keep_answers(wrapped: Any, saved: Saved) -> None:
    """Have lm-eval's model answer from `saved` what an earlier run asked of this very model, in the
    same requests; scoring is not kept. (lm-eval's own cache knows the request alone.)"""
    settings = wrapped.model.generation_config, wrapped.tokenizer.special_tokens_map
    about = metadata.version("lm-eval"), wrapped.batch_size, wrapped.max_length, str(settings)

    def keeping(kind: str, ask: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def answers(requests: Sequence[Any], **given: Any) -> list[Any]:
            key = digest(["lm_eval", kind, about, [one.args for one in requests]])
            kept = saved.load(key)
            if kept is None:
                found = ask(requests, **given)
                text = json.dumps(found).encode()
                saved.save(key, np.frombuffer(text, np.uint8).astype(np.float64))
                return found
            rows = json.loads(kept.astype(np.uint8).tobytes())
            return [tuple(one) if isinstance(one, list) else one for one in rows]

        return answers

    for kind in _ASKED_BY:
        setattr(wrapped, kind, keeping(kind, getattr(wrapped, kind)))


def _scored(
    name: str, task: Any, row: Mapping[str, Any], wanted: Sequence[str]
) -> Iterator[tuple[str, str, float]]:
    """What one row of lm-eval says of its document: which kind of number, of which subject."""
    better, together = task.higher_is_better(), {*_aggregates(name, task)}
    choice = task.OUTPUT_TYPE == "multiple_choice"
    options = len(task.doc_to_choice(row["doc"])) if choice else 0
    for metric in row["metrics"]:
        if (wanted and metric not in wanted) or f"{name} {metric}" in together:
            continue
        higher = better.get(metric, True)
        subject = f"{name} {metric if higher else f'1-{metric}'}"
        subject += f" {row['filter']}" * (row["filter"] != "none")
        value = _number(row[metric], f"{name} {metric}", row["doc_id"])
        yield SCORE, subject, value if higher else 1 - value
        if choice or task.OUTPUT_TYPE == "loglikelihood":
            yield LIKELIHOOD, subject, sum(float(one[0]) for one in row["filtered_resps"])
        yield CHANCE, subject, 1 / options if choice else 0.0
        if choice and subject == f"{name} acc":
            nats = np.array([float(one[0]) for one in row["filtered_resps"][:options]])
            yield CONFIDENCE, f"{name} calibration", 1 / np.exp(nats - nats.max()).sum()


def _number(value: object, what: str, place: int) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    if not -_ROUNDING <= number <= 1 + _ROUNDING:
        raise MeasurementError(
            f"lm-eval's {what} is {value!r:.40} on document {place}: only scores from 0 to 1 are "
            "compared: leave it out with metrics: [...]"
        )
    return number


# --- base and another model ----------------------------------------------------------------------


def paired(base: Opened, kept: Scores) -> tuple[Scores, Scores]:
    """(base's, the other model's) scores on the same documents and prompts; what the series of both
    measures take is put beside them.

    Raises:
        MeasurementError: as `scores`, or the two were not asked the same.
    """
    ours = base.once(scores)
    assert base.documents is not None  # or there are no scores
    different = [
        unit
        for unit, one, other in zip(base.documents.units, ours.prompts, kept.prompts, strict=True)
        if one != other
    ]
    if different or ours.of[SCORE].keys() != kept.of[SCORE].keys():
        first = f", first on {different[0].clean!r:.80}" if different else ""
        raise MeasurementError(
            f"lm-eval asked base and {kept.role} differently on {len(different)} of "
            f"{len(ours.prompts)} documents{first}: they need the same chat template"
        )
    for whose, found in ((BASE, ours), ("", kept)):
        for kind, by_subject in found.of.items():
            if kind != CHANCE or whose == BASE:
                base.beside.update({Key(kind, one, whose): by_subject[one] for one in by_subject})
    return ours, kept


# --- what lm-eval leaves behind ------------------------------------------------------------------


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of lm-eval."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _not_tied(model: Any) -> Iterator[None]:
    """lm-eval ties the weights of every model that it is given: this one was loaded whole."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Whatever lm-eval raises (KeyError, ConnectionError, ValueError, ...) as one line."""
    import torch

    try:
        yield
    except (ForgetguardError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # another's code
        hint = (
            "its data is not on this machine and cannot be fetched: fetch it once with a network, "
            "or give a task file with local data_files in include: FOLDER"
            if any(
                isinstance(one, ConnectionError) or "offline" in str(one).lower()
                for one in _chain(error)
            )
            else "check the task's file and the checkpoints"
        )
        raise MeasurementError(f"lm-eval failed on {what}: {described(error)}: {hint}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
