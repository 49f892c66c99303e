"""Prompt pairs, prompts and questions as entries of texts: on the lines of JSONL files, with
`file:line` errors, or in a gate file itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from forgetguard.capabilities.pairs import Prompt, PromptPair, Question
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.gate.yaml_lines import Problems, nearest, read_text

Item = TypeVar("Item", bound=PromptPair | Prompt | Question)

FEWEST_PAIRS = 2  # below that there is no spread to estimate
_LISTS = ("answers", "distractors", "options")  # keys of lists of texts
_CLASSES = "classes"  # the key of a mapping of texts


@dataclass(frozen=True, slots=True)
class Kind(Generic[Item]):
    """A kind of entries: what they are called, their keys, of which the first `needed` must be
    there, and what their fields make."""

    what: str
    keys: tuple[str, ...]
    needed: int
    make: Callable[..., Item]

    @property
    def required(self) -> tuple[str, ...]:
        return self.keys[: self.needed]


def _prompt(prompt: str, **more: Any) -> Prompt:
    return Prompt(prompt, **more)


PAIRS = Kind(
    "prompt pairs",
    ("clean", "counterfactual", "answer", "distractor", *_LISTS[:2], "template", _CLASSES),
    3,
    PromptPair,
)
PROMPTS = Kind("prompts", ("prompt", "completion", "template"), 1, _prompt)
QUESTIONS = Kind("questions", ("question", "answer", "options"), 2, Question)

# What makes two pairs the same pair.
PairTexts: TypeAlias = tuple[str, str, str, str | None, tuple[str, ...], tuple[str, ...]]


def pair_texts(pair: PromptPair) -> PairTexts:
    """What makes two pairs the same pair: its texts, not where it was read from."""
    further = pair.answers, pair.distractors
    return pair.clean, pair.counterfactual, pair.answer, pair.distractor, *further


def check_pairs(pairs: Sequence[PromptPair], readout: str | None, problems: Problems) -> None:
    """Add to `problems` what makes pairs unusable: a counterfactual or a distractor that changes
    nothing, no distractor for a readout that needs one, and a pair given twice.

    A repeat is an error, not dropped: it would count one observation twice, and a file that holds
    fewer pairs than it has lines should not be discovered from an interval.
    """
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
    _check_once(pairs, pair_texts, "pair", problems)


def check_prompts(prompts: Sequence[Prompt], problems: Problems) -> None:
    """Add to `problems` every prompt that is given twice, as `check_pairs` does."""
    _check_once(prompts, lambda one: (one.clean, one.completion), "prompt", problems)


def _check_questions(questions: Sequence[Question], problems: Problems) -> None:
    for one in questions:
        line, options = one.line, one.options
        if options and one.answer not in options:
            told = f"the answer {one.answer!r} is none of the options: write it as there"
            problems.add(line, told)
        if len(options) == 1 or len({*options}) < len(options):
            problems.add(line, "options must be two or more, each once")
        if bool(options) != bool(questions[0].options):
            first = questions[0].line
            problems.add(line, f"give options on every line or on none (line {first})")
    _check_once(questions, lambda one: one.question, "question", problems)


def _check_once(
    items: Iterable[Item], texts: Callable[[Item], object], what: str, problems: Problems
) -> None:
    first: dict[object, int] = {}
    for one in items:
        line, own = one.line or 0, texts(one)
        if own in first:
            problems.add(line, f"the same {what} as on line {first[own]}: remove one of them")
        first.setdefault(own, line)


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

    def check(pairs: Sequence[PromptPair], problems: Problems) -> None:
        check_pairs(pairs, readout, problems)

    return _read_file(Path(path), PAIRS, check, count or at_least)[:count]


def read_prompts(path: str | Path, *, at_least: int = FEWEST_PAIRS) -> list[Prompt]:
    """The prompts of a JSONL file: on each line an object with `prompt` and optionally `completion`
    and `template`. Empty lines are skipped; errors and `at_least` as of `read_prompt_file`.

    Raises:
        SpecificationError: all that is wrong with the file, each with its line.
    """
    return _read_file(Path(path), PROMPTS, check_prompts, at_least)


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a JSONL file: on each line an object with `question`, `answer` and, in all
    of them or in none, `options`, of which the answer is one.

    Raises:
        SpecificationError: all that is wrong with the file, each with its line.
    """
    return _read_file(Path(path), QUESTIONS, _check_questions, FEWEST_PAIRS)


def _read_file(
    path: Path,
    kind: Kind[Item],
    check: Callable[[Sequence[Item], Problems], None],
    at_least: int,
) -> list[Item]:
    """All entries of a file (raises SpecificationError: all that is wrong with it)."""
    problems = Problems(str(path))
    lines = enumerate(read_text(path, "prompt file").split("\n"), start=1)
    read = [_read_line(text, line, kind, problems) for line, text in lines if text.strip()]
    found = [one for one in read if one is not None]
    check(found, problems)
    if not problems and len(found) < at_least:
        told = f"holds {len(found)} {kind.what}, at least {at_least} are needed: add some"
        problems.add(1, told)
    problems.raise_any()
    return found


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


def _read_line(written: str, line: int, kind: Kind[Item], problems: Problems) -> Item | None:
    value, wrong = json_object(written)
    for problem in wrong:
        problems.add(line, problem)
    if value is None:
        return None
    for key in kind.required:
        if key not in value:
            problems.add(line, f"{key!r} is missing: add it")
    for key in value:
        if key not in kind.keys:
            problems.add(line, f"unknown key {key!r}: {nearest(key, kind.keys)}")
    return read_entry(value, line, kind, lambda _, message: problems.add(line, message))


def read_entry(
    given: Mapping[str, object], line: int, kind: Kind[Item], wrong: Callable[[str, str], None]
) -> Item | None:
    """What an entry makes; None where a key that is required lacks, or is not as it should be.
    `wrong` is told the key and what is wrong with it. Of other keys None is as good as nothing."""
    fields = {
        key: _read_field(key, value, wrong)
        for key, value in given.items()
        if key in kind.keys and (value is not None or key in kind.required)
    }
    fields = {key: value for key, value in fields.items() if value is not None}
    return kind.make(**fields, line=line) if fields.keys() >= {*kind.required} else None


def _read_field(key: str, value: object, wrong: Callable[[str, str], None]) -> Any:
    def text_of(label: str, value: object) -> str | None:
        told = ""
        if not isinstance(value, str):
            got = "nothing" if value is None else f"{value!r:.60}"
            told = f"must be text, got {got}"
        elif not value and key != "template":
            told = "must not be empty"
        elif any("\ud800" <= character <= "\udfff" for character in value):
            told = "holds half a character (a lone surrogate): write it whole"
        if told:
            wrong(key, f"{label} {told}")
        return None if told else str(value)

    if key in _LISTS and isinstance(value, list):
        texts = [text_of(f"{key}: each", one) for one in value]
        return tuple(text for text in texts if text is not None)
    if key == _CLASSES and isinstance(value, dict):
        for name in value:
            if not name:
                wrong(key, f"{key}: a class must have a name, got {name!r}")
        named = {name: text_of(f"{key}: {name}", one) for name, one in value.items()}
        return {name: text for name, text in named.items() if name and text is not None}
    if key in _LISTS:
        got = getattr(value, "written", f"{value!r:.60}")  # of a number in YAML, no hint at quotes
        wrong(key, f"{key} must be a list of texts, got {got} (write e.g. [' four', ' five'])")
    elif key == _CLASSES:
        told = f'must be a mapping of texts ({{"order": "abba"}}), got {value!r:.60}'
        wrong(key, f"{key} {told}")
    else:
        return text_of(key, value)
    return None
