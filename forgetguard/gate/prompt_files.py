"""Prompt pairs from a JSONL file, one pair a line, with `file:line` errors. [light]"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.yaml_lines import Problems, nearest, read_text

PAIR_KEYS = ("clean", "counterfactual", "answer", "distractor", "template")
REQUIRED_PAIR_KEYS = PAIR_KEYS[:3]
FEWEST_PAIRS = 2  # below that there is no spread to estimate


def pair_texts(pair: PromptPair) -> tuple[str, str, str, str | None]:
    """What makes two pairs the same pair: its texts, not where it was read from."""
    return pair.clean, pair.counterfactual, pair.answer, pair.distractor


def check_pairs(pairs: Sequence[PromptPair], readout: str | None, problems: Problems) -> None:
    """Add to `problems` what makes pairs unusable: a counterfactual or a distractor that changes
    nothing, no distractor for `logit_diff`, and a pair given twice.

    A repeat is an error, not dropped: it would count one observation twice, and a file that holds
    fewer pairs than it has lines should not be discovered from an interval.
    """
    first: dict[tuple[str, str, str, str | None], int] = {}
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
        if readout == "logit_diff" and pair.distractor is None:
            problems.add(
                line, "readout logit_diff needs a distractor: add one, or use readout: logprob"
            )
        if (texts := pair_texts(pair)) in first:
            problems.add(line, f"the same pair as on line {first[texts]}: remove one of them")
        first.setdefault(texts, line)


def read_prompt_file(
    path: str | Path, *, readout: str | None = None, count: int | None = None
) -> list[PromptPair]:
    """The prompt pairs of a JSONL file: on each line an object with `clean`, `counterfactual`,
    `answer` and optionally `distractor` and `template`. Empty lines are skipped.

    Args:
        path: the file, UTF-8.
        readout: with `logit_diff`, every pair must have a distractor.
        count: the first `count` pairs only; the whole file is checked all the same.

    Raises:
        SpecificationError: all that is wrong with the file, each with its line.
    """
    path = Path(path)
    problems = Problems(str(path))
    pairs = []
    for line, written in enumerate(read_text(path, "prompt file").split("\n"), start=1):
        if written.strip():
            pair = _read_line(written, line, problems)
            if pair is not None:
                pairs.append(pair)
    check_pairs(pairs, readout, problems)
    wanted = FEWEST_PAIRS if count is None else count
    if not problems and len(pairs) < wanted:
        problems.add(1, f"holds {len(pairs)} prompt pairs, at least {wanted} are needed: add pairs")
    problems.raise_any()
    return pairs[:count]


def _read_line(written: str, line: int, problems: Problems) -> PromptPair | None:
    twice: list[str] = []

    def unique(items: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in items]
        twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(items)

    try:
        value = json.loads(written, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = (
            f"{error.msg} at column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else "nested too deeply"
        )
        problems.add(line, f"not JSON: {reason}: write one object a line")
        return None
    if not isinstance(value, dict):
        problems.add(line, f"a prompt pair must be a JSON object, got {value!r:.60}")
        return None
    for key in twice:
        problems.add(line, f"{key!r} is given twice: keep one")
    fields = {key: _read_field(key, item, line, problems) for key, item in value.items()}
    missing = [key for key in REQUIRED_PAIR_KEYS if key not in value]
    for key in missing:
        problems.add(line, f"{key!r} is missing: add it")
    clean, counterfactual, answer = (fields.get(key) for key in REQUIRED_PAIR_KEYS)
    if clean is None or counterfactual is None or answer is None:
        return None
    distractor, template = fields.get("distractor"), fields.get("template") or ""
    return PromptPair(clean, counterfactual, answer, distractor, template, line)


def _read_field(key: str, value: object, line: int, problems: Problems) -> str | None:
    if key not in PAIR_KEYS:
        problems.add(line, f"unknown key {key!r}: {nearest(key, PAIR_KEYS)}")
        return None
    if value is None and key not in REQUIRED_PAIR_KEYS:
        return None
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
