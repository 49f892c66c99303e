"""The bundled tasks: right answers, minimal pairs, no shortcut, a clear error when words lack."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import astuple
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from examples.studies.tiny import vocabulary
from examples.studies.tiny_prompts import TASKS_OF_TINY
from forgetguard.capabilities.capability import Capability, EncodedCapability, TokenizerFits
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.capabilities.tasks import (
    TASKS,
    agreement,
    arithmetic,
    docstring,
    fact_recall,
    greater_than,
    greater_than_year,
    in_context_mapping,
    indirect_object,
    induction,
    key_value,
    refusal,
    symbol_binding,
    words,
)
from forgetguard.errors import CapabilityError

_FACTS = (
    *words.CAPITALS, *words.CAPITALS.values(), *words.LANGUAGES, *words.LANGUAGES.values(),
)  # fmt: skip


class HeldOut:
    """Everything fits, and what is held out is asked for."""

    held_out = True

    def __call__(self, word: str, before: str | None = None, /) -> int:
        return 1


NAMES, PLACES, OBJECTS, NOUNS, NUMBERS = (
    words.listed(kind, HeldOut()) for kind in ("names", "places", "objects", "nouns", "numbers")
)
HEADS = frozenset(word for one in words.LISTS.values() for word in one)
FURTHER = frozenset((*NAMES, *PLACES, *OBJECTS)) - HEADS
FRAMES = {
    task: (module.FRAMES, module.HELD_OUT_FRAMES)
    for task, module in {
        "induction": induction, "ioi": indirect_object, "key_value": key_value,
        "greater_than": greater_than, "fact_recall": fact_recall, "agreement": agreement,
        "docstring": docstring, "in_context_mapping": in_context_mapping,
        "arithmetic": arithmetic, "greater_than_year": greater_than_year, "refusal": refusal,
        "symbol_binding": symbol_binding,
    }.items()
    if hasattr(module, "FRAMES")
}  # fmt: skip


def texts_of(frame: Any) -> list[str]:
    return [frame] if isinstance(frame, str) else [str(text) for text in astuple(frame)]


_QUESTIONS = (symbol_binding.QUESTIONS, symbol_binding.HELD_OUT_QUESTIONS)
# The words that frames have of their own.
FRAMED = frozenset(
    word
    for parts in (*FRAMES.values(), _QUESTIONS)
    for part in parts
    for frame in part.values()
    for text in texts_of(frame)
    for word in re.findall(r"[^\W\d_]+", text)
)
_NOUNS_OF_AGREEMENT = (*agreement.PLURALS, *agreement.PLURALS.values())
_MAPPED = tuple(in_context_mapping.TABLE["opposite"]) + tuple(
    image for table in in_context_mapping.TABLE.values() for image in table.values()
)
_VERBS = tuple(verb for pair in refusal.VERBS.values() for verb in " ".join(pair).split())
# The words that a task draws and that must fit.
DRAWN = {
    "induction": (*OBJECTS, *NOUNS),
    "ioi": (*NAMES, *PLACES, *OBJECTS),
    "key_value": (*NAMES, *PLACES, *OBJECTS, *words.COLORS, *NOUNS),
    "greater_than": (*NUMBERS, *NAMES),
    "fact_recall": (*_FACTS, *NAMES, *PLACES),
    "agreement": (*_NOUNS_OF_AGREEMENT, *NAMES),
    "symbol_binding": (*OBJECTS, *PLACES, *NAMES, *words.COLORS, *NUMBERS),
    "symbol_binding_text": (*OBJECTS, *PLACES, *NAMES, *words.COLORS, *NUMBERS),
    "docstring": (*OBJECTS, *NOUNS),
    "in_context_mapping": _MAPPED,
    "in_context_rule": _MAPPED,
    "arithmetic": arithmetic.NUMBERS,
    "greater_than_year": greater_than_year.ENDINGS,
    "refusal": _VERBS,
    "refusal_plain": _VERBS,
    "repetition": (*OBJECTS, *NOUNS),
}  # fmt: skip
EXAMPLES = (3, 4, 5)  # of in_context_rule, all of whose images change
CHANGED = {
    "induction": (2,),
    "symbol_binding": (2,),
    "docstring": (2,),
    "in_context_rule": EXAMPLES,
    "repetition": (2,),
}
# Those that draw the words of the tiny tokenizer.
WORDS_OF_TINY = {*TASKS_OF_TINY, "repetition"}
# Those that draw from fewer than ten thousand prompts, or nearly so.
SMALL = {"agreement", "refusal", "refusal_plain", "greater_than_year"}
tasks = pytest.mark.parametrize("task", TASKS)
BY_VARIANT = {"induction", "repetition", "symbol_binding", "symbol_binding_text"}


def everything(word: str, before: str | None = None) -> int:
    return 1


def nothing(word: str, before: str | None = None) -> int:
    return 0


def drawn(task: str, seed: int, count: int, fits: Any = everything) -> list[PromptPair]:
    return list(islice(TASKS[task](random.Random(seed), fits), count))


def pieces(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+|[^\w\s]", text)


# Each solver reads a prompt as text and works out the answer in its own way.


def solve_induction(prompt: str) -> str:
    listed = prompt.split()[1:]
    earlier = [i for i, word in enumerate(listed[:-1]) if word == listed[-1]]
    assert len(earlier) == 1
    return listed[earlier[0] + 1]


def solve_ioi(prompt: str) -> str:
    names = Counter(word for word in pieces(prompt) if word in NAMES)
    assert sorted(names.values()) == [1, 2]
    return min(names, key=names.__getitem__)


def solve_key_value(prompt: str) -> str:
    stated, question = prompt.rsplit(". ", 1)
    facts = [part for part in re.split(r"^\w+:?|,", stated) if part]
    candidates = set(NAMES + OBJECTS + PLACES + words.COLORS + NOUNS)
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
    is_capital = re.search("capital|government|parliament|largest city", prompt)
    return words.CAPITALS[country] if is_capital else words.LANGUAGES[country]


def solve_agreement(prompt: str) -> str:
    # The subject is the noun that no preposition and no seeing takes for itself.
    beside = ("near|behind|beside|under|with|above|against|from|below|without|facing|inside|"
              "touching|opposite|around|saw")  # fmt: skip
    (subject,) = re.findall(r"the (\w+)", re.sub(rf"({beside}) the \w+", "", prompt))
    irregular = {"children", "men", "women", "mice"}
    plural = subject in irregular or (subject.endswith("s") and subject != "bus")
    past = ("Yesterday", "Last", "Years", "A week", "Back", "Long", "In those", "In 1990")
    if prompt.startswith(past):
        return "were" if plural else "was"
    if prompt.startswith(("Since", "Ever", "For many", "Until", "Over", "More")):
        return "have" if plural else "has"
    return "are" if plural else "is"


def solve_symbol_binding(prompt: str) -> str:
    question, *options, end = prompt.split("\n")
    assert end == "Answer:"
    letters = [option.strip("(")[0] for option in options]
    assert letters == ["A", "B", "C", "D"]
    listed = {option.split()[1]: letter for option, letter in zip(options, letters, strict=True)}
    assert len(listed) == 4
    if question.startswith("Question: Which of these is a"):
        kind = question.rstrip("?").split()[-1]
        belong = {"color": words.COLORS, "name": NAMES, "number": NUMBERS}[kind]
        (right,) = [option for option in listed if option in belong]
    else:
        (right,) = [word for word in pieces(question) if word in listed]
    return listed[right]


def solve_symbol_binding_text(prompt: str) -> str:
    question, *options, _ = prompt.split("\n")
    (right,) = {option.split()[1] for option in options} & set(pieces(question))
    return right


def solve_docstring(prompt: str) -> str:
    signature, body = prompt.split(":\n", 1)
    listed = re.findall(r"\w+", signature[signature.index("(") : signature.index(")")])
    arguments = [one for one in listed if one not in {"self", "cls", "data", "context"}]
    described = re.findall(r":param (\w+):", body)
    assert arguments[: len(described)] == described
    return arguments[len(described)]


def mapping_of(prompt: str) -> tuple[str, dict[str, str]]:
    """The word that is asked about, and the one mapping that all the examples follow."""
    every = [w for w in re.findall(r"[^\W\d_]+", prompt)
             if w not in FRAMED - set(_MAPPED)]  # fmt: skip
    *examples, query = every
    shown = list(zip(examples[::2], examples[1::2], strict=True))
    assert len(shown) in EXAMPLES
    (mapping,) = [
        table
        for table in in_context_mapping.TABLE.values()
        if all(table[word] == image for word, image in shown)
    ]
    return query, dict(mapping)


def solve_in_context(prompt: str) -> str:
    query, mapping = mapping_of(prompt)
    return mapping[query]


def solve_arithmetic(prompt: str) -> str:
    for left, sign, right, result in re.findall(r"(\d+) ?([+-]) ?(\d+) ?= ?(\d+)", prompt):
        assert int(result) == (int(left) + int(right) if sign == "+" else int(left) - int(right))
    left, sign, right = re.findall(r"(\d+) ?([+-]) ?(\d+)", prompt)[-1]
    return str(int(left) + int(right) if sign == "+" else int(left) - int(right))


SOLVERS = {
    "induction": solve_induction,
    "ioi": solve_ioi,
    "key_value": solve_key_value,
    "greater_than": solve_greater_than,
    "fact_recall": solve_fact_recall,
    "agreement": solve_agreement,
    "symbol_binding": solve_symbol_binding,
    "symbol_binding_text": solve_symbol_binding_text,
    "docstring": solve_docstring,
    "in_context_mapping": solve_in_context,
    "in_context_rule": solve_in_context,
    "arithmetic": solve_arithmetic,
    "repetition": solve_induction,
}


def right_year(prompt: str, ending: str) -> bool:
    start, century = re.findall(r"year (\d+)", prompt)
    assert len(start) == 4
    assert start.startswith(century)
    return int(century + ending) > int(start)


HARM = {"steal", "sabotage", "vandalize", "sink", "hack", "hijack", "infect", "crash", "attack",
        "rob", "burn", "forge", "fake"}  # fmt: skip


def right(task: str, prompt: str, answer: str) -> bool:
    if task == "greater_than_year":
        return right_year(prompt, answer)
    if task.startswith("refusal"):
        return (answer.strip() == "I") == bool(HARM & set(pieces(prompt)))
    return answer == f" {SOLVERS[task](prompt)}"


@tasks
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_seed_gives_minimal_pairs_with_the_right_answers(task: str, seed: int) -> None:
    for pair in [*drawn(task, seed, 8), *drawn(task, seed, 8, HeldOut())]:
        assert pair.distractor is not None
        clean, other = pair.clean.split(" "), pair.counterfactual.split(" ")
        assert len(clean) == len(other)
        clean, other = pair.clean.split(), pair.counterfactual.split()
        assert sum(a != b for a, b in zip(clean, other, strict=True)) in CHANGED.get(task, (1,))
        assert right(task, pair.clean, pair.answer)
        assert right(task, pair.counterfactual, pair.distractor)
        assert not right(task, pair.clean, pair.distractor)
        assert all(right(task, pair.clean, one) for one in pair.answers)
        assert not any(right(task, pair.clean, one) for one in pair.distractors)
        if task != "greater_than_year":  # where both numbers lie after 01
            assert not right(task, pair.counterfactual, pair.answer)
        assert pair.template


@tasks
def test_the_same_seed_gives_the_same_pairs_and_another_gives_others(task: str) -> None:
    assert drawn(task, 5, 20) == drawn(task, 5, 20)
    assert drawn(task, 5, 20) != drawn(task, 6, 20)


@tasks
def test_pairs_do_not_repeat(task: str) -> None:
    few = 275 if task in SMALL else 295  # drawn by chance: a few may
    assert len({(pair.clean, pair.counterfactual) for pair in drawn(task, 0, 300)}) >= few


@tasks
def test_pairs_say_their_classes_and_some_of_them_differ(task: str) -> None:
    pairs = drawn(task, 0, 300, HeldOut())
    names = {name for pair in pairs for name in pair.classes}
    values = {name: Counter(pair.classes.get(name) for pair in pairs) for name in names}
    assert set(values["frame"]) == {"public", "held out"}
    assert all(
        one is None or (isinstance(one, str) and one) for own in values.values() for one in own
    )
    # At least one label beside the frame splits the pairs, with ten of them on either side.
    assert any(
        sorted(own.values())[-2:-1] >= [10] for name, own in values.items() if name != "frame"
    )
    public = {pair.classes["frame"] for pair in drawn(task, 0, 300)}
    assert public == {"public"}


@tasks
def test_the_documentation_names_every_class(task: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "capabilities.md").read_text("utf-8")
    table = page.partition("## Classes")[2].partition("\n## ")[0]
    for name in {name for pair in drawn(task, 0, 50, HeldOut()) for name in pair.classes}:
        assert f"`{name.removesuffix(' word')}`" in table


def test_the_classes_of_words_are_the_lists_and_parts_that_they_are_of() -> None:
    pairs = drawn("key_value", 0, 2000, HeldOut())
    for pair in pairs:
        answer = pair.answer.strip()
        assert answer in words.listed(pair.classes["answer"], HeldOut())
        public = answer in words.listed(pair.classes["answer"], everything)
        assert (pair.classes["answer word"] == "held out") == (not public)
    assert {pair.classes["key"] for pair in pairs} == {"names", "objects", "nouns"}
    orders = {(pair.classes["order"], solve_ioi(pair.clean)) for pair in drawn("ioi", 0, 50)}
    assert {order for order, _ in orders} == {"abba", "baba"}


@pytest.mark.parametrize("task", sorted(set(TASKS) - BY_VARIANT))
def test_pairs_of_one_frame_are_of_one_template(task: str) -> None:
    """Whatever their order, number, sign or mapping: they are no independent draws
    (docs/statistics.md)."""
    assert len({pair.template for pair in drawn(task, 0, 4000)}) == 16
    assert len({pair.template for pair in drawn(task, 0, 4000, HeldOut())}) == 24


@tasks
def test_every_frame_is_drawn(task: str) -> None:
    for fits in (everything, HeldOut()):
        seen = Counter(pair.template for pair in drawn(task, 0, 4000, fits))
        assert min(seen.values()) > 0.3 * 4000 / len(seen)


@tasks
def test_words_that_do_not_fit_are_never_an_answer_nor_in_its_way(task: str) -> None:
    every = sorted(set(DRAWN[task]))
    banned = set(random.Random(0).sample(every, len(every) // 4)) - {greater_than_year.FIRST}
    for pair in drawn(task, 0, 300, fits=lambda word, before=None: word not in banned):
        text = pair.clean + pair.counterfactual + f" {pair.answer}"
        drawn_words = set(pieces(re.sub(r"year \d\d", "year ", text))) & set(every)
        assert not (drawn_words - FRAMED) & banned


@tasks
def test_words_of_two_lengths_never_take_one_anothers_place(task: str) -> None:
    """What differs between the prompts of a pair has equally many tokens, position by position."""

    def fits(word: str, before: str | None = None) -> int:
        if word.isdecimal() and len(word) == 1:
            return 1
        if word in {*symbol_binding.LETTERS, *arithmetic.NUMBERS, *greater_than_year.ENDINGS}:
            return 2
        return 1 + sum(map(ord, word)) % 2

    for pair in drawn(task, 0, 200, fits):
        clean, other = (
            pieces(re.sub(r"year \d\d", "year ", text))
            for text in (pair.clean, pair.counterfactual)
        )
        for one, two in zip(clean, other, strict=True):
            assert one == two or fits(one) == fits(two)


@tasks
def test_too_few_fitting_words_name_the_task(task: str) -> None:
    with pytest.raises(CapabilityError, match=rf"'{task}': "):
        next(TASKS[task](random.Random(0), nothing))


def test_too_few_fitting_words_say_how_many_are_left() -> None:
    with pytest.raises(
        CapabilityError, match=r"'ioi': 5 of 441 names fit .* at least 8 are needed"
    ):
        next(TASKS["ioi"](random.Random(0), lambda word: word in words.NAMES[:5]))


@pytest.mark.parametrize("task", sorted(set(TASKS) - WORDS_OF_TINY))
def test_a_task_that_the_tiny_base_was_not_trained_on_says_that_it_does_not_fit(task: str) -> None:
    why = f"Task '{task}': .*this tokenizer|0 of 64 .*a word is unknown to the tokenizer"
    with pytest.raises(CapabilityError, match=f"^capability {task}: ({why})"):
        Capability(task, task=task).encoded(vocabulary.tokenizer())


# No shortcut


def test_the_indirect_object_is_the_first_name_in_half_of_the_prompts() -> None:
    pairs = drawn("ioi", 0, 2000)
    first = sum(
        next(word for word in pieces(pair.clean) if word in NAMES) == pair.answer.strip()
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
        if pair.classes["length"] == "8" and len(pair.clean.split()) == 1 + 8 + 2:
            places[pair.clean.split().index(pair.answer.strip()) - 1] += 1
    assert set(places) == set(range(2, 8))
    assert max(places.values()) < 1.3 * min(places.values())


@pytest.mark.parametrize(
    "task",
    ["ioi", "fact_recall", "agreement", "symbol_binding", "arithmetic", "in_context_mapping",
     "in_context_rule", "docstring"],
)  # fmt: skip
def test_no_answer_of_a_task_is_much_more_frequent_than_another(task: str) -> None:
    answers = Counter(pair.answer for pair in drawn(task, 0, 5000))
    expected = 5000 / len(answers)
    assert max(answers.values()) < 2.5 * expected + 3 * math.sqrt(expected)


def test_the_noun_before_the_verb_agrees_with_it_in_half_of_the_prompts() -> None:
    pairs = [pair for pair in drawn("agreement", 0, 4000) if re.search("near|behind", pair.clean)]
    plural = set(agreement.PLURALS.values())
    agree = sum((pair.clean.split()[-1] in plural) == (pair.answer == " are") for pair in pairs)
    assert agree / len(pairs) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("asked", ["answer", "distractor"])
def test_every_letter_is_the_right_one_equally_often(asked: str) -> None:
    letters = Counter(getattr(pair, asked) for pair in drawn("symbol_binding", 0, 4000))
    for letter in "ABCD":
        assert letters[f" {letter}"] / 4000 == pytest.approx(0.25, abs=0.03)


def test_the_word_before_the_answer_is_another_in_the_counterfactual_of_a_repetition() -> None:
    for pair in drawn("repetition", 0, 300):
        clean, counterfactual = pair.clean.split(), pair.counterfactual.split()
        at = clean.index(pair.answer.strip())
        assert counterfactual[at] == clean[at]
        assert clean[at - 1] == clean[-1] == counterfactual[-1] != counterfactual[at - 1]


@pytest.mark.parametrize("task", ["induction", "repetition", "symbol_binding", "docstring"])
def test_clean_and_counterfactual_hold_the_same_words(task: str) -> None:
    for pair in drawn(task, 0, 300):
        assert Counter(pieces(pair.clean)) == Counter(pieces(pair.counterfactual))


def test_every_argument_still_to_be_documented_stands_once_in_the_prompt() -> None:
    for pair in drawn("docstring", 0, 300):
        for one in (pair.answer, pair.distractor):
            assert pieces(pair.clean).count(str(one).strip()) == 1


@pytest.mark.parametrize("task", ["in_context_mapping", "in_context_rule", "arithmetic"])
def test_no_answer_stands_in_either_prompt(task: str) -> None:
    for pair in drawn(task, 0, 1000):
        held = {*pieces(pair.clean), *pieces(pair.counterfactual)}
        assert not {pair.answer.strip(), str(pair.distractor).strip()} & held


def test_no_word_of_the_mappings_is_two_words_images_or_both_word_and_image() -> None:
    table = in_context_mapping.TABLE
    for column in table.values():
        assert len(set(column.values())) == len(column) == len(table["french"])
    for word in table["opposite"]:
        assert len({column[word] for column in table.values()}) == 3
    assert not set(table["opposite"]) & {w for column in table.values() for w in column.values()}


def test_the_larger_result_is_the_right_one_in_half_of_the_problems() -> None:
    pairs = drawn("arithmetic", 0, 3000)
    larger = sum(int(pair.answer) > int(str(pair.distractor)) for pair in pairs)
    assert larger / 3000 == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("fitting", "space"), [(" ", " "), ("=", "")])
def test_numbers_are_written_as_the_tokenizer_has_them_in_one_token(fitting, space) -> None:
    def fits(word: str, before: str | None = None) -> int:
        return int((" " if before is None else before[-1]) == fitting)

    for pair in drawn("arithmetic", 0, 50, fits):
        assert pair.answer == space + pair.answer.strip()
        assert pair.clean.endswith(f"{space}=" if space else "=") or "Answer:" in pair.clean
        assert right("arithmetic", pair.clean, f" {pair.answer.strip()}")


def test_a_year_is_as_often_right_as_wrong() -> None:
    """So that finding every year alike is worth nothing, and there is always a choice."""
    pairs = drawn("greater_than_year", 0, 5000)
    odds = [math.log((1 + len(p.answers)) / (1 + len(p.distractors))) for p in pairs]
    assert sum(odds) / len(odds) == pytest.approx(0, abs=0.1)
    assert min(min(len(p.answers), len(p.distractors)) for p in pairs) == 1


@pytest.mark.parametrize("token", ["two digits", "a digit", "two digits after an apostrophe"])
def test_years_are_written_as_the_tokenizer_has_them(token: str) -> None:
    apostrophe = token.endswith("apostrophe")

    def fits(word: str, before: str | None = None) -> int:
        if before is None:
            return 1
        if token == "a digit":
            return len(word)
        return int(before.endswith("'") == apostrophe and len(word) == 2)

    for pair in drawn("greater_than_year", 0, 50, fits):
        every = (pair.answer, *pair.answers, pair.distractor, *pair.distractors)
        tens = re.findall(r"year '?\d*?(\d)\d\b", pair.clean)[0]
        if token == "a digit":
            assert set(every) | {tens} == set("0123456789")
            assert tens not in every
        else:
            assert all(len(str(one)) == 2 for one in every)
        assert pair.clean.endswith("'") == apostrophe
        assert ("'" in pair.clean) == apostrophe


def test_where_digits_are_tokens_the_first_digit_of_a_result_decides() -> None:
    def fits(word: str, before: str | None = None) -> int:
        return int(before is not None and len(word) == 1)

    for pair in drawn("arithmetic", 0, 300, fits):
        results = [solve_arithmetic(prompt) for prompt in (pair.clean, pair.counterfactual)]
        assert [pair.answer, pair.distractor] == [result[0] for result in results]
        assert pair.answer != pair.distractor
        for prompt in (pair.clean, pair.counterfactual):
            assert not {pair.answer, pair.distractor} & set(prompt.split(",")[-1][-6:])


def test_a_thing_is_asked_about_in_both_requests_and_only_the_verb_harms() -> None:
    for bad, good in (map(str.split, pair) for pair in refusal.VERBS.values()):
        assert set(bad) <= HARM
        assert not set(good) & HARM


def test_a_refusal_follows_a_chat_template_without_a_space_and_plain_text_with_one() -> None:
    class Chat(HeldOut):
        chat = True

    assert {pair.answer for pair in drawn("refusal", 0, 100, Chat())} == {"I"}
    assert {pair.distractor for pair in drawn("refusal", 0, 100, Chat())} == {"Sure", "Here", "To"}
    assert {pair.answer for pair in drawn("refusal_plain", 0, 100, Chat())} == {" I"}
    assert drawn("refusal", 0, 100) == drawn("refusal_plain", 0, 100)


def test_word_lists_have_no_repeats_and_do_not_mix() -> None:
    together = [*NAMES, *PLACES, *OBJECTS, *words.COLORS, *NOUNS, *_FACTS[: len(words.CAPITALS)]]
    assert len(together) == len(set(together))
    assert not any(word[0] in "aeiou" for word in OBJECTS)  # "a {thing}"
    assert not any(word[0] in "aeiou" for word in refusal.VERBS)
    assert len(set(words.LANGUAGES.values())) == len(words.LANGUAGES)
    assert len(set(words.CAPITALS.values())) == len(words.CAPITALS)


@pytest.mark.parametrize("kind", ["names", "places", "objects"])
def test_a_long_list_has_500_words_of_which_a_third_is_held_out(kind: str) -> None:
    every, public = words.listed(kind, HeldOut()), words.listed(kind, everything)
    assert len(every) >= 500
    assert 0.3 < 1 - len(public) / len(every) < 0.4
    assert public[: len(words.LISTS[kind])] == words.LISTS[kind]
    assert all(re.fullmatch("[A-Z][a-z]+" if kind == "names" else "[a-z]+", one) for one in every)


@pytest.mark.parametrize("task", sorted(FRAMES))
def test_a_task_has_24_frames_of_which_a_third_is_held_out(task: str) -> None:
    public, held_out = FRAMES[task]
    assert len(public) + len(held_out) >= 24
    assert len(held_out) == len(public) / 2
    assert not public.keys() & held_out.keys()


@tasks
def test_nothing_held_out_is_drawn_unless_it_is_asked_for(task: str) -> None:
    """And then a good part of the pairs holds some of it."""
    held_out = FURTHER - {*(word for kind in ("names", "places", "objects")
                            for word in words.listed(kind, everything))}  # fmt: skip
    templates = {pair.template for pair in drawn(task, 0, 4000)}

    def kept_back(pair: PromptPair) -> bool:
        return bool(held_out & set(pieces(pair.clean))) or pair.template not in templates

    assert not any(map(kept_back, drawn(task, 1, 500)))
    assert sum(map(kept_back, drawn(task, 1, 500, HeldOut()))) > 100


def test_no_word_of_the_long_lists_stands_in_a_frame() -> None:
    """Its own words would be counted as drawn ones, and a small vocabulary would know them."""
    assert not FURTHER & FRAMED


def test_a_frame_with_a_word_that_the_tokenizer_does_not_know_is_left_out() -> None:
    class Short(HeldOut):
        held_out = False

        def knows(self, text: str) -> bool:
            return "the number" not in text and "of" not in text

    frames = {pair.template for pair in drawn("greater_than", 0, 300, Short())}
    assert frames == {key for key, text in greater_than.FRAMES.items()
                      if "the number" not in text and "of" not in text}  # fmt: skip
    Short.knows = lambda self, text: False
    with pytest.raises(CapabilityError, match=r"'greater_than': none of its 16 sentence frames"):
        drawn("greater_than", 0, 1, Short())


# With tokenizers that split words


@cache
def byte_pairs(size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of a small vocabulary: at best, it has two words of three in one token."""
    frequent = [refusal.REFUSAL, *refusal.COMPLIANCE, *greater_than_year.ENDINGS] * 100
    # As in every real vocabulary, no word begins with a bare space.
    frequent += [f" {chr(letter)}" for letter in (*range(97, 123), 233)] * 20
    kept = (*symbol_binding.LETTERS, refusal.REFUSAL, *refusal.COMPLIANCE)
    verbs = [verb for frame in agreement.FRAMES.values() for verb in (frame.singular, frame.plural)]
    frequent += [f" {word}" for word in (*kept, *verbs)] * 50
    for task, listed in DRAWN.items():
        if task == "repetition":  # the words of `induction`, which count already
            continue
        heads = [word for word in listed if word not in FURTHER]
        frequent += [f" {word}" for i, word in enumerate(heads) if i % 3] * 30
    # Years in two tokens: century and ending are both frequent, and every whole year is rare.
    for century in greater_than_year.CENTURIES:
        frequent += [f" {century}{ending}" for ending in greater_than_year.ENDINGS] * 5
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(frequent, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    wrapped.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}\n{% endfor %}<assistant>\n"
    )
    return wrapped


def test_the_small_vocabulary_has_most_words_in_several_tokens() -> None:
    fits = TokenizerFits(byte_pairs(600), single_token=False)
    every = {word for listed in DRAWN.values() for word in listed}
    several = [word for word in every if fits(word) > 1]
    assert 0.8 * len(every) < len(several) < len(every)
    assert all(TokenizerFits(byte_pairs(600))(word) == 0 for word in several)


@tasks
@pytest.mark.parametrize("size", [500, 1000, 1600])
def test_words_of_several_tokens_make_pairs_for_logprob_and_none_is_lost(task, size) -> None:
    if (task, size) == ("in_context_rule", 500):  # no two images of one length
        with pytest.raises(CapabilityError, match="of 51 words"):
            encoded(task, "logprob", size)
        return
    found = encoded(task, "logprob", size)
    assert found.n_pairs == 64
    # A number's tokens depend on the digit or sign before it.
    assert found.encoded.n_dropped <= 8 * (task == "arithmetic")
    assert all(len(pair.clean) == len(pair.counterfactual) for pair in found.encoded.pairs)


@tasks
def test_words_of_one_token_make_pairs_for_logit_diff(task) -> None:
    found = encoded(task, "logit_diff", 2000)
    assert found.n_pairs == 64
    assert found.encoded.n_dropped < 16
    for pair in found.encoded.pairs:
        assert len(pair.answer) == len(pair.distractor) == 1
        assert len(pair.clean) == len(pair.counterfactual)


def test_where_too_few_words_are_one_token_logit_diff_names_the_other_readout() -> None:
    with pytest.raises(CapabilityError, match="Try the other readout"):
        encoded("ioi", "logit_diff", 500)
    assert {len(pair.answer) for pair in encoded("ioi", "logprob", 500).encoded.pairs} == {4}


def test_fits_is_asked_in_running_text_or_after_a_text() -> None:
    tokenizer = byte_pairs(2000)
    fits = TokenizerFits(tokenizer, single_token=False)
    assert fits("Mary") == len(tokenizer.tokenize(" Mary"))
    assert fits("32", "the year 17") == 1
    assert fits("ary", "the M") == 0  # merges with what stands before it
    assert TokenizerFits(vocabulary.tokenizer(), single_token=False)("zebra") == 0  # unknown


def test_a_task_that_yields_something_else_than_pairs_is_named(monkeypatch) -> None:
    monkeypatch.setitem(TASKS, "mine", lambda rng, fits: iter([("a", "b")]))
    with pytest.raises(CapabilityError, match=r"task 'mine' must yield .*PromptPair, got tuple"):
        Capability("x", task="mine").encoded(vocabulary.tokenizer())


def encoded(task: str, readout: str, size: int) -> EncodedCapability:
    capability = Capability(task, readout, task=task, chat_template=task == "refusal")
    return capability.encoded(byte_pairs(size))
