"""`lm_eval:` of a gate file, read and written: which tasks, or whose questions, and how many."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from forgetguard.gate import yaml_lines as lines
from forgetguard.gate.prompt_files import read_questions
from forgetguard.gate.yaml_lines import Problems, line_of
from forgetguard.measures.documents import EvalTasks

_KEYS = (
    "tasks", "include", "questions", "limit", "seed", "chat_template", "metrics", "batch_size",
)  # fmt: skip
_MOST = 1_000_000  # a slip of the keyboard beyond it
_EXAMPLE = "[arc_easy, hellaswag]"


def read_tasks(node: yaml.Node, path: Path, problems: Problems) -> EvalTasks:
    """What a gate file at `path` gives under `lm_eval:`; what is wrong goes to `problems`."""
    nodes = lines.mapping(node, "lm_eval", problems, known=_KEYS)
    if isinstance(node, yaml.MappingNode) and not {"tasks", "questions"} & nodes.keys():
        problems.add(
            node,
            f"lm_eval: 'tasks' or 'questions' is missing: give tasks: {_EXAMPLE}, or questions: "
            "FILE.jsonl with question, answer and options on each line",
        )
    folder = _optional(nodes, "include", lines.text, problems)
    include = None if folder is None else (path.parent / folder).resolve()
    if include is not None and not include.is_dir():
        problems.add(nodes["include"], f"lm_eval: include: {include} is no folder")
        include = None
    read = lines.items_of_file
    file, questions = read(nodes, "questions", "lm_eval", path, read_questions, problems)
    if file is not None and " " in file.stem:
        told = f"lm_eval: questions: {file.stem!r} names a task, and may have no space"
        problems.add(nodes["questions"], told)
    return EvalTasks(
        tasks=_names(nodes, "tasks", _EXAMPLE, problems),
        include=include,
        questions_file=file,
        questions=questions,
        limit=_whole(nodes, "limit", 2, problems),
        seed=_whole(nodes, "seed", 0, problems) or 0,
        chat_template=_optional(nodes, "chat_template", lines.flag, problems) or False,
        metrics=_names(nodes, "metrics", "[acc]", problems),
        batch_size=_whole(nodes, "batch_size", 1, problems) or 1,
        line=line_of(node),
    )


def _optional(nodes: dict[str, yaml.Node], key: str, read: Any, problems: Problems) -> Any:
    return read(nodes[key], f"lm_eval: {key}", problems) if key in nodes else None


def _names(
    nodes: dict[str, yaml.Node], key: str, example: str, problems: Problems
) -> tuple[str, ...]:
    if key not in nodes:
        return ()
    items = lines.sequence(nodes[key], f"lm_eval: {key}", example, problems)
    if isinstance(nodes[key], yaml.SequenceNode) and not items:
        problems.add(nodes[key], f"lm_eval: {key} is empty: give e.g. {example}")
    found: list[str] = []
    for item in items:
        name = lines.text(item, f"lm_eval: {key}: each", problems)
        if name in found:
            problems.add(item, f"lm_eval: {key}: {name} is given twice: keep one")
        elif name is not None:
            found.append(name)
    return tuple(found)


def _whole(nodes: dict[str, yaml.Node], key: str, least: int, problems: Problems) -> int | None:
    return lines.whole(nodes, key, "lm_eval", max(least, 8), (least, _MOST), problems)


def dump_tasks(given: EvalTasks, directory: str | Path | None) -> dict[str, Any]:
    """The mapping that reads back as `given` from a gate file in `directory`."""

    def written(path: Path) -> str:
        return str(path) if directory is None else os.path.relpath(path, Path(directory).resolve())

    found: dict[str, Any] = {"tasks": list(given.tasks)} if given.tasks else {}
    if given.include is not None:
        found["include"] = written(given.include)
    if given.questions_file is not None:
        found["questions"] = written(given.questions_file)
    if given.limit is not None:
        found["limit"] = given.limit
    found["seed"] = given.seed
    if given.chat_template:
        found["chat_template"] = True
    if given.metrics:
        found["metrics"] = list(given.metrics)
    return found if given.batch_size == 1 else found | {"batch_size": given.batch_size}
