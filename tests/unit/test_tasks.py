"""The bundled tasks: right answers, minimal pairs, no shortcut, a clear error when words lack."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks import TASKS, words
from forgetguard.errors import CapabilityError

EVERYTHING = frozenset(
    (
        *words.NAMES, *words.PLACES, *words.OBJECTS, *words.COLORS, *words.NOUNS, *words.NUMBERS,
        *words.CAPITALS, *words.CAPITALS.values(), *words.LANGUAGES, *words.LANGUAGES.values(),
    )
)  # fmt: skip
tasks = pytest.mark.parametrize("task", TASKS)


def drawn(task: str, seed: int, count: int, fits=EVERYTHING.__contains__) -> list[PromptPair]:
    return list(islice(TASKS[task](random.Random(seed), fits), count))


def pieces(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+|[^A-Za-z ]", text)


# Each solver reads a prompt as text and works out the answer in its own way.


def solve_induction(prompt: str) -> str:
    listed = prompt.split()[1:]
    earlier = [i for i, word in enumerate(listed[:-1]) if word == listed[-1]]
    assert len(earlier) == 1
    return listed[earlier[0] + 1]


def solve_ioi(prompt: str) -> str:
    names = Counter(word for word in pieces(prompt) if word in words.NAMES)
    assert sorted(names.values()) == [1, 2]
    return min(names, key=names.__getitem__)


def solve_key_value(prompt: str) -> str:
    stated, question = prompt.rsplit(". ", 1)
    facts = [part for part in re.split(r"^\w+:?|,", stated) if part]
    candidates = set(words.NAMES + words.OBJECTS + words.PLACES + words.COLORS + words.NOUNS)
    found = [[word for word in pieces(fact) if word in candidates] for fact in facts]
    assert all(len(one) == 2 for one in found)
    (asked,) = [word for word in pieces(question) if word in candidates]
    (answer,) = [value for key, value in found if key == asked]
    return answer


def solve_greater_than(prompt: str) -> str:
    numbers = [word for word in pieces(prompt) if word in words.NUMBERS]
    assert len(numbers) == 2
    return max(numbers, key=words.NUMBERS.__getitem__)


def solve_fact_recall(prompt: str) -> str:
    (country,) = [word for word in pieces(prompt) if word in words.CAPITALS]
    return words.CAPITALS[country] if "capital" in prompt else words.LANGUAGES[country]


SOLVERS = {
    "induction": solve_induction,
    "ioi": solve_ioi,
    "key_value": solve_key_value,
    "greater_than": solve_greater_than,
    "fact_recall": solve_fact_recall,
}


@tasks
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_seed_gives_minimal_pairs_with_the_right_answers(task: str, seed: int) -> None:
    for pair in drawn(task, seed, 8):
        assert pair.distractor is not None
        clean, other = pair.clean.split(" "), pair.counterfactual.split(" ")
        assert len(clean) == len(other)
        changed = sum(a != b for a, b in zip(clean, other, strict=True))
        assert changed == (2 if task == "induction" else 1)  # induction swaps two words
        assert pair.answer == f" {SOLVERS[task](pair.clean)}"
        assert pair.distractor == f" {SOLVERS[task](pair.counterfactual)}"
        assert pair.answer != pair.distractor
        assert pair.template


@tasks
def test_the_same_seed_gives_the_same_pairs_and_another_gives_others(task: str) -> None:
    assert drawn(task, 5, 20) == drawn(task, 5, 20)
    assert drawn(task, 5, 20) != drawn(task, 6, 20)


@tasks
def test_pairs_do_not_repeat(task: str) -> None:
    assert len({pair.clean for pair in drawn(task, 0, 300)}) >= 295  # drawn by chance: a few may


@tasks
def test_every_frame_is_drawn(task: str) -> None:
    seen = Counter(pair.template for pair in drawn(task, 0, 2000))
    assert min(seen.values()) > 0.5 * 2000 / len(seen)


@tasks
def test_words_that_do_not_fit_are_never_an_answer_nor_in_its_way(task: str) -> None:
    banned = set(random.Random(0).sample(sorted(EVERYTHING), len(EVERYTHING) // 3))
    for pair in drawn(task, 0, 300, fits=lambda word: word not in banned):
        drawn_words = set(pieces(pair.clean + pair.answer)) & EVERYTHING
        framed = {"book", "cards", "numbers"}  # words that frames have of their own
        assert not (drawn_words - framed) & banned


@tasks
def test_too_few_fitting_words_name_the_task_and_how_many_are_left(task: str) -> None:
    with pytest.raises(CapabilityError, match=rf"'{task}': 0 of \d+"):
        TASKS[task](random.Random(0), lambda word: False)


def test_the_indirect_object_is_the_first_name_in_half_of_the_prompts() -> None:
    pairs = drawn("ioi", 0, 2000)
    first = sum(
        next(word for word in pieces(pair.clean) if word in words.NAMES) == pair.answer.strip()
        for pair in pairs
    )
    assert first / 2000 == pytest.approx(0.5, abs=0.05)


def test_the_larger_number_stands_first_in_half_of_the_prompts() -> None:
    first = sum(
        next(word for word in pieces(pair.clean) if word in words.NUMBERS) == pair.answer.strip()
        for pair in drawn("greater_than", 0, 2000)
    )
    assert first / 2000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("asked", ["answer", "distractor"])
def test_the_fact_asked_for_is_anywhere_in_the_list(asked: str) -> None:
    places = Counter()
    for pair in drawn("key_value", 0, 6000):
        facts = pair.clean.rsplit(". ", 1)[0].split(",")
        if len(facts) == 4:
            wanted = getattr(pair, asked).strip()
            places[next(i for i, fact in enumerate(facts) if fact.split()[-1] == wanted)] += 1
    for place in range(4):
        assert places[place] / places.total() == pytest.approx(0.25, abs=0.05)


def test_the_word_that_repeats_next_is_anywhere_in_the_list() -> None:
    places = Counter()
    for pair in drawn("induction", 0, 8000):
        if pair.template.endswith("-8") and len(pair.clean.split()) == 1 + 8 + 2:
            places[pair.clean.split().index(pair.answer.strip()) - 1] += 1
    assert set(places) == set(range(2, 8))
    assert max(places.values()) < 1.3 * min(places.values())


def test_no_answer_of_a_task_is_much_more_frequent_than_another() -> None:
    for task in ("ioi", "fact_recall"):
        answers = Counter(pair.answer for pair in drawn(task, 0, 5000))
        assert max(answers.values()) / 5000 < 2.5 / len(answers)


def test_word_lists_have_no_repeats_and_do_not_mix() -> None:
    lists = [words.NAMES, words.PLACES, words.OBJECTS, words.COLORS, words.NOUNS]
    together = [word for one in lists for word in one]
    assert len(together) == len(set(together))
    assert not any(word[0] in "aeiou" for word in words.OBJECTS)  # "a {thing}"
    assert len(set(words.LANGUAGES.values())) == len(words.LANGUAGES)
    assert len(set(words.CAPITALS.values())) == len(words.CAPITALS)


def test_the_tasks_need_no_torch() -> None:
    code = "import sys, forgetguard.capabilities.tasks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
