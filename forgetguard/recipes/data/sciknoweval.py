"""Questions in the SciKnowEval format: JSONL rows in, `Question`s or all that is wrong out.

The format (arXiv 2406.09098) has on each line an object with `prompt.default` (the instruction),
`question`, `type`, and by type `choices.text`, `choices.label` and `answerKey` ("mcq-4-choices"),
or `answer` ("filling"). One key is ours: `valid`, for a "filling" row that several answers are
right for. Other keys are not read. Light: no torch.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forgetguard.errors import SpecificationError
from forgetguard.gate.prompt_files import json_object
from forgetguard.gate.yaml_lines import read_text
from forgetguard.recipes.data.question import Question, contradictions, rendered
from forgetguard.recipes.data.reward import reward

TYPES = "mcq-2-choices, mcq-4-choices (any number) and filling"
MOST_SHOWN = 20  # problems told one by one; the rest are counted


def read_questions(*paths: str | Path) -> list[Question]:
    """The questions of JSONL files, or of all `*.jsonl` files of folders by name, in their order.

    Options are rendered into the prompt. The training label of a choice is its option's
    label, otherwise the answer, after one space. Questions with the same text, wherever they were
    read from, have the same group. Empty lines are skipped.

    A file of which every question has one answer is an error, not a warning: a model can only
    learn that answer from it, and a reward that it meets at once would look like success.

    Raises:
        SpecificationError: all that is wrong with all files as `file:line: problem`, the first 20
            in full and the others counted.
    """
    problems: list[str] = []
    questions: list[Question] = []
    for file in _files(paths):
        found, wrong = _read_file(file)
        questions += found
        problems += wrong
    problems += [] if problems else contradictions(questions)
    if problems:
        more = len(problems) - MOST_SHOWN
        counted = [f"... and {more} more problem{'s' * (more > 1)}"] if more > 0 else []
        raise SpecificationError("\n".join([*problems[:MOST_SHOWN], *counted]))
    return questions


def group_of(text: str) -> str:
    """A name for all questions with this text, whatever its spacing; case counts, as in SMILES."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]


def _files(paths: Sequence[str | Path]) -> list[Path]:
    if not paths:
        raise SpecificationError("no question file is given: name JSONL files or a folder of them")
    files = []
    for path in map(Path, paths):
        inside = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise SpecificationError(f"{path}: the folder holds no .jsonl file: check the path")
        files += inside
    return files


def _read_file(file: Path) -> tuple[list[Question], list[str]]:
    """The questions of one file, and what is wrong with it."""
    try:
        text = read_text(file, "question file")
    except SpecificationError as error:
        return [], [str(error)]
    questions: list[Question] = []
    problems: list[str] = []
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        where = f"{file}:{line}"
        wrong: list[str] = []
        if question := _read_row(written, where, wrong):
            questions.append(question)
        problems += [f"{where}: {problem}" for problem in wrong]
    if not questions and not problems:
        problems.append(f"{file}:1: the file holds no question: write one JSON object a line")
    answers = {question.answer for question in questions}
    if len(answers) == 1 and not problems:
        problems.append(
            f"{file}:1: {'the one question has' if len(questions) == 1 else 'all questions have'} "
            f"the answer {min(answers)!r} ({len(questions)} read): nothing can be learned from one "
            "answer; add questions with others"
        )
    return questions, problems


def _read_row(written: str, where: str, problems: list[str]) -> Question | None:
    """One row as a question, or None and all that is wrong with it."""
    row, wrong = json_object(written)
    if row is None or wrong:
        problems += wrong
        return None
    prompt = row.get("prompt")
    instruction = _text(
        prompt.get("default") if isinstance(prompt, dict) else prompt,
        "prompt.default",
        problems,
        empty=True,
    )
    asked = _text(row.get("question"), "question", problems)
    kind = row.get("type")
    options: dict[str, str] = {}
    valid: list[str] = []
    if isinstance(kind, str) and (number := re.fullmatch(r"mcq-(\d+)-choices", kind)):
        options = _options(row.get("choices"), int(number[1]), problems)
        answer = _line(row.get("answerKey"), "answerKey", problems)
        if answer and options and answer not in options:
            problems.append(f"answerKey is {answer!r:.60}: it must be one of {', '.join(options)}")
    elif kind == "filling":
        answer = _line(row.get("answer"), "answer", problems)
        valid = _list(row["valid"], "valid", problems) if "valid" in row else []
        if valid and answer and answer not in valid:
            problems.append(f"answer {answer!r:.60} is not among valid: add it there")
    else:
        problems.append(f"type is {kind!r:.60}: answers of types {TYPES} can be rewarded")
    if problems:
        return None
    question = Question(
        prompt=rendered(instruction, asked, options),
        answer=f" {answer}",
        valid=frozenset(valid or [answer]),
        kind="choice" if options else "open" if valid else "text",
        options=tuple(options),
        group=group_of(asked),
        where=where,
    )
    if not reward(question, question.answer):
        problems.append(f"the answer {answer!r} cannot be read back from a completion: reword it")
        return None
    return question


def _options(choices: Any, number: int, problems: list[str]) -> dict[str, str]:
    """The option texts by label, each one line; empty where something is wrong with them."""
    before = len(problems)
    parts = choices if isinstance(choices, dict) else {}
    texts = _list(parts.get("text"), "choices.text", problems)
    labels = _list(parts.get("label"), "choices.label", problems)
    if len(problems) > before:
        return {}
    if not len(texts) == len(labels) == number or number < 2:
        problems.append(
            f"choices have {len(labels)} labels and {len(texts)} texts where the type says "
            f"{number}: give as many of each, 2 or more"
        )
    for what, items in (("label", labels), ("text", texts)):
        for item, count in Counter(items).items():
            if count > 1:
                problems.append(f"{count} options have the {what} {item!r:.60}: make them differ")
    return {} if len(problems) > before else dict(zip(labels, texts, strict=True))


def _list(value: Any, name: str, problems: list[str]) -> list[str]:
    if not isinstance(value, list) or not value:
        got = "nothing" if value is None else f"{value!r:.60}"
        problems.append(f"{name} must be a list of texts, got {got}")
        return []
    return [_line(item, f"{name}[{i}]", problems) for i, item in enumerate(value)]


def _line(value: Any, name: str, problems: list[str]) -> str:
    return " ".join(_text(value, name, problems).split())


def _text(value: Any, name: str, problems: list[str], *, empty: bool = False) -> str:
    """A text without surrounding space, or "" and a problem."""
    if value is None:
        problems.append(f"{name} is missing: add it")
    elif not isinstance(value, str):
        problems.append(f"{name} must be text, got {value!r:.60}")
    elif not (value.strip() or empty):
        problems.append(f"{name} must not be empty")
    elif any("\ud800" <= character <= "\udfff" for character in value):
        problems.append(f"{name} holds half a character (a lone surrogate): write it whole")
    else:
        return value.strip()
    return ""
