"""Prompt pairs, and prompts, from JSONL files, one a line, with `file:line` errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from forgetguard.capabilities.pairs import Prompt, PromptPair, Question
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.gate.yaml_lines import Problems, nearest, read_text

FURTHER_KEYS = ("answers", "distractors")  # lists of texts
QUESTION_KEYS = ("question", "answer", "options")
_LISTS = (*FURTHER_KEYS, "options")
CLASSES = "classes"  # a mapping of texts
PAIR_KEYS = (
    "clean", "counterfactual", "answer", "distractor", "template", *FURTHER_KEYS, CLASSES
)  # fmt: skip
REQUIRED_PAIR_KEYS = PAIR_KEYS[:3]
PROMPT_KEYS = ("prompt", "completion", "template")
FEWEST_PAIRS = 2  # below that there is no spread to estimate


# What makes two pairs the same pair.
PairTexts: TypeAlias = tuple[str, str, str, str | None, tuple[str, ...], tuple[str, ...]]


def pair_texts(pair: PromptPair) -> PairTexts:
    """What makes two pairs the same pair: its texts, not where it was read from."""
    further = pair.answers, pair.distractors
    return pair.clean, pair.counterfactual, pair.answer, pair.distractor, *further


def make_pair(fields: Mapping[str, Any], line: int) -> PromptPair | None:
    """The pair that an entry with `PAIR_KEYS` gives; None where one that is needed lacks."""
    clean, counterfactual, answer = (fields.get(key) for key in REQUIRED_PAIR_KEYS)
    if clean is None or counterfactual is None or answer is None:
        return None
    answers, distractors = (tuple(fields.get(key) or ()) for key in FURTHER_KEYS)
    distractor, template = fields.get("distractor"), fields.get("template") or ""
    return PromptPair(
        clean,
        counterfactual,
        answer,
        distractor,
        template,
        line,
        answers,
        distractors,
        fields.get(CLASSES) or {},
    )


def check_pairs(pairs: Sequence[PromptPair], readout: str | None, problems: Problems) -> None:
    """Add to `problems` what makes pairs unusable: a counterfactual or a distractor that changes
    nothing, no distractor for a readout that needs one, and a pair given twice.

    A repeat is an error, not dropped: it would count one observation twice, and a file that holds
    fewer pairs than it has lines should not be discovered from an interval.
    """
    first: dict[PairTexts, int] = {}
    for pair in pairs:
        line = pair.line or 0
        if pair.clean == pair.counterfactual:
            problems.add(
                line, "the counterfactual equals the clean prompt: change what decides the answer"
            )
        if pair.distractor == pair.answer:
            problems.add(
                line, f"the distractor equals the answer {pair.answer!r}: give the answer to the "
                "counterfactual"
            )  # fmt: skip
        given = [pair.answer, *pair.answers, *pair.distractors]
        given += [] if pair.distractor in (None, pair.answer) else [str(pair.distractor)]
        if len(set(given)) < len(given):
            twice = next(text for text in given if given.count(text) > 1)
            problems.add(line, f"{twice!r} stands twice among the answers and distractors: once")
        if pair.distractors and pair.distractor is None:
            problems.add(line, "distractors are further ones: give the first as distractor")
        if readout in READOUTS and READOUTS[readout].needs_distractor and pair.distractor is None:
            problems.add(
                line, f"readout {readout} needs a distractor: add one, or use readout: logprob"
            )
        if (texts := pair_texts(pair)) in first:
            problems.add(line, f"the same pair as on line {first[texts]}: remove one of them")
        first.setdefault(texts, line)


def check_prompts(prompts: Sequence[Prompt], problems: Problems) -> None:
    """Add to `problems` every prompt that is given twice, as `check_pairs` does."""
    first: dict[tuple[str, str], int] = {}
    for one in prompts:
        texts, line = (one.clean, one.completion), one.line or 0
        if texts in first:
            problems.add(line, f"the same prompt as on line {first[texts]}: remove one of them")
        first.setdefault(texts, line)


def read_prompt_file(
    path: str | Path,
    *,
    readout: str | None = None,
    count: int | None = None,
    at_least: int = FEWEST_PAIRS,
) -> list[PromptPair]:
    """The prompt pairs of a JSONL file: on each line an object with `clean`, `counterfactual`,
    `answer` and optionally `distractor`, `template`, the lists `answers` and `distractors`, and the
    mapping `classes`. Empty lines are skipped.

    Args:
        path: the file, UTF-8.
        readout: with one that needs them, every pair must have a distractor.
        count: the first `count` pairs only; the whole file is checked all the same.
        at_least: how many pairs it must hold, where `count` is not given.

    Raises:
        SpecificationError: all that is wrong with the file, each with its line.
    """
    problems = Problems(str(path))
    pairs = []
    for line, fields in _read_objects(Path(path), PAIR_KEYS, REQUIRED_PAIR_KEYS, problems):
        pair = make_pair(fields, line)
        if pair is not None:
            pairs.append(pair)
    check_pairs(pairs, readout, problems)
    _check_enough(len(pairs), count or at_least, "prompt pairs", problems)
    return pairs[:count]


def read_prompts(path: str | Path, *, at_least: int = FEWEST_PAIRS) -> list[Prompt]:
    """The prompts of a JSONL file: on each line an object with `prompt` and optionally `completion`
    and `template`. Empty lines are skipped; errors and `at_least` as of `read_prompt_file`.

    Raises:
        SpecificationError: all that is wrong with the file, each with its line.
    """
    problems = Problems(str(path))
    found = []
    for line, fields in _read_objects(Path(path), PROMPT_KEYS, PROMPT_KEYS[:1], problems):
        clean, completion = fields.get("prompt"), fields.get("completion") or ""
        if clean is not None:
            found.append(Prompt(clean, completion, fields.get("template") or "", line))
    check_prompts(found, problems)
    _check_enough(len(found), at_least, "prompts", problems)
    return found


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a JSONL file: on each line an object with `question`, `answer` and, in all
    of them or in none, `options`, of which the answer is one.

    Raises:
        SpecificationError: all that is wrong with the file, each with its line.
    """
    problems = Problems(str(path))
    found: list[Question] = []
    first: dict[str, int] = {}
    for line, fields in _read_objects(Path(path), QUESTION_KEYS, QUESTION_KEYS[:2], problems):
        asked, answer = fields.get("question"), fields.get("answer")
        options = tuple(fields.get("options") or ())
        if asked is None or answer is None:
            continue
        if options and answer not in options:
            problems.add(line, f"the answer {answer!r} is none of the options: write it as there")
        if len(options) == 1 or len({*options}) < len(options):
            problems.add(line, "options must be two or more, each once")
        if found and bool(options) != bool(found[0].options):
            problems.add(line, f"give options on every line or on none (line {found[0].line})")
        if asked in first:
            problems.add(line, f"the same question as on line {first[asked]}: remove one of them")
        first.setdefault(asked, line)
        found.append(Question(asked, answer, options, line))
    _check_enough(len(found), FEWEST_PAIRS, "questions", problems)
    return found


def _check_enough(found: int, wanted: int, what: str, problems: Problems) -> None:
    """Raises SpecificationError where anything is wrong, or there are fewer than are needed."""
    if not problems and found < wanted:
        problems.add(1, f"holds {found} {what}, at least {wanted} are needed: add some")
    problems.raise_any()


def _read_objects(
    path: Path, known: Sequence[str], required: Sequence[str], problems: Problems
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, texts and lists of texts by key) of every object of the file; the rest goes to
    `problems`."""
    for line, written in enumerate(read_text(path, "prompt file").split("\n"), start=1):
        if written.strip():
            fields = _read_line(written, line, known, required, problems)
            if fields is not None:
                yield line, fields


def json_object(written: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The JSON object on a line, and what is wrong with it; None where it is none."""
    twice: list[str] = []

    def unique(items: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in items]
        twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(items)

    try:
        value = json.loads(written, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        return None, [f"not JSON: {error.msg} at column {error.colno}: write one object a line"]
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number too long
        return None, [f"not JSON that can be read: {error}"]
    if not isinstance(value, dict):
        return None, [f"a line must be a JSON object, got {value!r:.60}"]
    return value, [f"{key!r} is given twice: keep one" for key in twice]


def _read_line(
    written: str, line: int, known: Sequence[str], required: Sequence[str], problems: Problems
) -> dict[str, Any] | None:
    value, wrong = json_object(written)
    for problem in wrong:
        problems.add(line, problem)
    if value is None:
        return None
    for key in required:
        if key not in value:
            problems.add(line, f"{key!r} is missing: add it")
    return {
        key: _read_field(key, item, line, known, key in required, problems)
        for key, item in value.items()
    }


def _read_field(
    key: str,
    value: object,
    line: int,
    known: Sequence[str],
    required: bool,
    problems: Problems,
) -> str | list[str] | dict[str, str] | None:
    if key not in known:
        problems.add(line, f"unknown key {key!r}: {nearest(key, known)}")
        return None
    if value is None and not required:
        return None
    if key in _LISTS and isinstance(value, list):
        texts = [_read_text(f"{key}: each", one, line, problems) for one in value]
        return [text for text in texts if text is not None]
    if key in _LISTS:
        problems.add(line, f"{key} must be a list of texts, got {value!r:.60}")
        return None
    if key == CLASSES and isinstance(value, dict):
        named = {
            name: _read_text(f"{key}: {name}", one, line, problems) for name, one in value.items()
        }
        if "" in named:
            problems.add(line, f"{key}: a class must have a name, got ''")
        return {name: text for name, text in named.items() if name and text is not None}
    if key == CLASSES:
        problems.add(
            line, f'{key} must be an object of texts ({{"order": "abba"}}), got {value!r:.60}'
        )
        return None
    return _read_text(key, value, line, problems)


def _read_text(key: str, value: object, line: int, problems: Problems) -> str | None:
    if not isinstance(value, str):
        problems.add(line, f"{key} must be text, got {value!r:.60}")
        return None
    if not value and key != "template":
        problems.add(line, f"{key} must not be empty")
        return None
    if any("\ud800" <= character <= "\udfff" for character in value):
        problems.add(line, f"{key} holds half a character (a lone surrogate): write it whole")
        return None
    return value
