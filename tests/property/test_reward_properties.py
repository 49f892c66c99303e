"""What holds of the reward whatever a model writes."""

from __future__ import annotations

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from forgetguard.recipes.data.question import Question, option_texts, rendered
from forgetguard.recipes.data.reward import ENDS, parse_choice, reward

QUICK = settings(max_examples=120, deadline=None, derandomize=True)
TEXTS = {"A": "145.2", "B": "173.2", "C": "CC(=O)O", "D": "12 + 3"}
EQUATION = "2H2 + O2 = 2H2O"
QUESTIONS = (
    Question(rendered("", "What?", TEXTS), " B", frozenset("B"), "choice", tuple(TEXTS)),
    Question("What? Answer:", " B", frozenset("B"), "choice", tuple(TEXTS)),
    Question("Balance:", f" {EQUATION}", frozenset({EQUATION}), "text"),
    Question("Name one:", " salt", frozenset({"salt", "honey"}), "open"),
)
PIECES = (
    *TEXTS, *TEXTS.values(), *ENDS, EQUATION, "salt", "honey", "The answer is", "Answer:", "not",
    "or", "and", "(", ")", ".", ":", ",", "\n", "\\boxed{", "}", "is correct", "**", "$", "b",
    "So", " ", "option", "Ａ",  # noqa: RUF001
)  # fmt: skip
composed = st.lists(st.sampled_from(PIECES), max_size=8).flatmap(
    lambda parts: st.sampled_from(["", " ", "\n"]).map(lambda joint: joint.join(parts))
)
completions = composed | st.text(max_size=40)
questions = st.sampled_from(QUESTIONS)
lines = st.text(st.characters(codec="ascii", exclude_characters="ABCD\n\r\v\f"), max_size=30)
spaces = st.text(" \t\n\r", max_size=4)


@QUICK
@given(questions, completions)
def test_a_reward_is_zero_or_one(question: Question, completion: str) -> None:
    given = reward(question, completion)
    event(f"{question.kind} {given}")
    assert given in (0.0, 1.0)


@QUICK
@given(questions, completions)
def test_no_reward_without_a_valid_answer_in_the_completion(
    question: Question, completion: str
) -> None:
    accepted = set(question.valid)
    if question.kind == "choice":
        accepted.add(TEXTS["B"])
    squeezed = "".join(completion.split())
    assume(not any("".join(answer.split()) in squeezed for answer in accepted))
    assert reward(question, completion) == 0.0


@QUICK
@given(questions, completions, spaces, spaces)
def test_surrounding_space_changes_nothing(
    question: Question, completion: str, before: str, after: str
) -> None:
    assert reward(question, before + completion + after) == reward(question, completion)


@QUICK
@given(st.sampled_from(QUESTIONS[:2]), st.lists(lines, max_size=4), completions)
def test_lines_about_other_things_before_a_choice_never_earn_what_it_did_not(
    question: Question, unrelated: list[str], completion: str
) -> None:
    before = "\n".join([*unrelated, ""])
    # The text of the right option, alone, is an answer; so is everything after an end an echo.
    assume(not any(end in before for end in ENDS) and TEXTS["B"] not in before)
    assert reward(question, before + completion) <= reward(question, completion)


@QUICK
@given(st.sampled_from("ACD"), completions)
def test_a_second_label_on_its_own_line_takes_the_reward_away(label: str, completion: str) -> None:
    assume(not any(end in completion for end in ENDS))
    assert reward(QUESTIONS[0], f"{completion}\n{label}") == 0.0
    assert reward(QUESTIONS[0], f"{label}\n{completion}") == 0.0


@QUICK
@given(completions)
def test_at_most_one_label_of_a_question_earns(completion: str) -> None:
    said = parse_choice(completion, tuple(TEXTS), TEXTS)
    assert said is None or said in TEXTS
    earned = [
        reward(Question(QUESTIONS[0].prompt, f" {label}", frozenset(label), "choice", tuple(TEXTS)),
               completion)
        for label in TEXTS
    ]  # fmt: skip
    assert sum(earned) == (said is not None)


@QUICK
@given(
    st.text(max_size=20),
    st.lists(st.text(max_size=20).map(lambda text: " ".join(text.split())), min_size=2, max_size=4),
)
def test_options_are_read_back_from_any_prompt_they_were_rendered_into(
    question: str, texts: list[str]
) -> None:
    options = dict(zip("ABCD", texts, strict=False))
    assert option_texts(rendered("Choose.", question, options), tuple(options)) == options
