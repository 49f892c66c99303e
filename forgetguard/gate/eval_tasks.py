"""`lm_eval:` of a gate file, read and written: which tasks, or whose questions, and how many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from forgetguard.gate import yaml_lines as lines
from forgetguard.gate.prompt_files import read_questions
from forgetguard.gate.yaml_lines import Fields, Problems, line_of
from forgetguard.measures.documents import EvalTasks

_KEYS = (
    "tasks", "include", "questions", "limit", "seed", "chat_template", "metrics", "batch_size",
)  # fmt: skip
_MOST = 1_000_000  # a slip of the keyboard beyond it
_EXAMPLE = "[arc_easy, hellaswag]"


def read_tasks(node: yaml.Node, path: Path, problems: Problems) -> EvalTasks:
    """What a gate file at `path` gives under `lm_eval:`; what is wrong goes to `problems`."""
    given = lines.mapping(node, "lm_eval", problems, known=_KEYS)
    if isinstance(node, yaml.MappingNode) and not {"tasks", "questions"} & given.keys():
        problems.add(
            node,
            f"lm_eval: 'tasks' or 'questions' is missing: give tasks: {_EXAMPLE}, or questions: "
            "FILE.jsonl with question, answer and options on each line",
        )
    folder = given.text("include")
    include = None if folder is None else (path.parent / folder).resolve()
    if include is not None and not include.is_dir():
        given.wrong("include", f"include: {include} is no folder")
        include = None
    file, questions = given.items_of_file("questions", path, read_questions)
    if file is not None and " " in file.stem:
        given.wrong("questions", f"questions: {file.stem!r} names a task, and may have no space")
    return EvalTasks(
        tasks=_names(given, "tasks", _EXAMPLE),
        include=include,
        questions_file=file,
        questions=questions,
        limit=given.whole("limit", 8, 2, _MOST),
        seed=given.whole("seed", 8, 0, _MOST) or 0,
        chat_template=given.flag("chat_template"),
        metrics=_names(given, "metrics", "[acc]"),
        batch_size=given.whole("batch_size", 8, 1, _MOST) or 1,
        line=line_of(node),
    )


def _names(given: Fields, key: str, example: str) -> tuple[str, ...]:
    if key not in given:
        return ()
    items = lines.sequence(given[key], given.label(key), example, given.problems)
    if isinstance(given[key], yaml.SequenceNode) and not items:
        given.wrong(key, f"{key} is empty: give e.g. {example}")
    found: list[str] = []
    for item in items:
        name = lines.text(item, given.label(f"{key}: each"), given.problems)
        if name in found:
            told = given.label(f"{key}: {name} is given twice: keep one")
            given.problems.add(item, told)
        elif name is not None:
            found.append(name)
    return tuple(found)


def dump_tasks(given: EvalTasks, written: Callable[[Path], str]) -> dict[str, Any]:
    """The mapping that reads back as `given`; `written` is how a gate file names a path."""
    paths = {"include": given.include, "questions": given.questions_file}
    found = {
        "tasks": list(given.tasks),
        **{key: path and written(path) for key, path in paths.items()},
        "limit": given.limit,
        "seed": given.seed,
        "chat_template": given.chat_template,
        "metrics": list(given.metrics),
        "batch_size": given.batch_size if given.batch_size > 1 else None,
    }
    return {key: value for key, value in found.items() if value or key == "seed"}
