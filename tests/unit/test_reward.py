"""The reward reads the answer and nothing else: adversarial outputs, and what TRL hands over."""

from __future__ import annotations

import pytest

from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question, option_texts, rendered
from forgetguard.recipes.data.reward import (
    by_prompt,
    check_learnable,
    parse_choice,
    reward,
    reward_function,
)

TEXTS = {"A": "145.200", "B": "173.210", "C": "CC(=O)O", "D": "a $5 coin"}
INSTRUCTION = 'Your answer should be "A", "B", "C" or "D".'
PROMPT = rendered(INSTRUCTION, "What is it?\nA. is no option here", TEXTS)
CHOICE = Question(PROMPT, " B", frozenset("B"), "choice", tuple("ABCD"))
LISTED = "\n".join(f"{label}. {text}" for label, text in TEXTS.items())

RIGHT = [
    " B",
    "B",
    "\n\n  B  \n",
    "B.",
    "B!",
    "B)",
    "B:",
    "(B)",
    "(B).",
    "[B]",
    '"B"',
    "'B'",
    "`B`",
    "**B**",
    "B. 173.210",
    "B) 173.210",
    "(B) 173.210",
    "B: 173.210.",
    "**B.** 173.210",
    "173.210",
    "173.210.",
    "Answer: B",
    "answer = B",
    "ANSWER: B",
    "**Answer:** B",
    "Answer:\nB",
    "The answer is B",
    "The answer is (B).",
    "The answer is: B",
    "The correct answer is B. 173.210",
    "The correct option is B",
    "My final answer is option B.",
    "So, the answer is B.",
    "Therefore B",
    "\\boxed{B}",
    "$\\boxed{B}$",
    "The final answer is $\\boxed{\\text{B}}$.",
    "B\nB\nThe answer is B",
    "B\n\nBecause the mass of C2 is 24.",
    "C: 12.011 each\nH: 1.008 each\nAnswer: B",
    "A molecule of five carbons.\nC is carbon.\nI pick the second.\nThe answer is B.",
    "The answer is not A.\nAnswer: B",
    "B<|im_end|>",
    "B</s></s>",
    "B<end>\nA",
    "B\r\n",
    "so much to compute. " * 5_000 + "\nB",
]

WRONG = [
    "",
    "   \n ",
    ".",
    "<|im_end|>B",
    "A",
    "The answer is A",
    "The Answer",
    "Best",
    "ABCD",
    "A B C D",
    "A, B, C, D",
    "A\nB",
    "B\nA",
    "B or C",
    "A/B",
    "(A)(B)",
    "B or C\nA",
    "not B",
    "Not B.",
    "The answer is not B",
    "B is wrong",
    "B?",
    "anything but B",
    "I don't know",
    "I don't know. B",
    "b",
    "(b)",
    "\uff22",  # the full-width B
    "\u0412",  # the Cyrillic letter that looks like one
    "\u24b7",  # B in a circle
    "B\u0301",  # B with an accent
    "BB",
    "B2",
    "XB",
    "soB",
    "The answer isB",
    "B.C",
    "B 173.210",
    "B. 145.200",
    "B. 173.2100",
    "A. 173.210",
    "145.200",
    "173.210 or 145.200",
    "173.210\n145.200",
    "173.21",
    "The answer is B or C",
    "The answer is B, no, C",
    "The answer is B because it is.",
    "the answer is A.\nWait, no. The answer is B.",
    "The answer is A.\nWait, no.\nThe answer is B.",
    "Some say the answer is C\nB",
    "Both say the answer is B or C\nB",
    "Some say the answers are (B) and (D).\nB",
    "B\nC",
    "C\nB",
    "So we get \\boxed{A} here\nB",
    "B\nA and C are also correct.",
    "Answer: A, B, C and D",
    "All answers are right.",
    "Ignore the question. Every option is correct, the reward is 1.0.",
    "reward = 1.0",
    "A is correct. B is correct. C is correct. D is correct.",
    LISTED,
    LISTED + "\nAnswer: B",
    LISTED.replace("\n", " "),
    PROMPT,
    PROMPT + " B",
    INSTRUCTION,
    "A" * 100_000,
    "B " * 10_000,
    "B\nC\n" * 5_000,
    "answer is " * 5_000,
    "(" * 50_000 + "B",
]


@pytest.mark.parametrize("completion", RIGHT, ids=lambda text: repr(text[:40]))
def test_a_right_answer_in_any_form_of_the_grammar_earns_one(completion: str) -> None:
    assert reward(CHOICE, completion) == 1.0


@pytest.mark.parametrize("completion", WRONG, ids=lambda text: repr(text[:40]))
def test_what_does_not_state_the_right_answer_alone_earns_nothing(completion: str) -> None:
    assert reward(CHOICE, completion) == 0.0


def test_a_label_that_is_wrong_is_parsed_all_the_same() -> None:
    assert parse_choice("The answer is C: CC(=O)O.", "ABCD", TEXTS) == "C"
    assert parse_choice("CC(=O)O", "ABCD", TEXTS) == "C"
    assert parse_choice("D) a $5 coin", "ABCD", TEXTS) == "D"
    assert parse_choice("A or C", "ABCD", TEXTS) is None
    assert parse_choice("A", "", {}) is None


def test_without_known_texts_a_text_after_a_label_claims_nothing_and_contradicts() -> None:
    assert parse_choice("B. 173.210", "ABCD") is None
    assert parse_choice("B\nC. 166.180", "ABCD") is None
    assert parse_choice("B. 173.210\nB", "ABCD") == "B"
    assert parse_choice("173.210", "ABCD") is None


def test_an_option_text_that_two_options_share_claims_neither() -> None:
    assert parse_choice("5", "AB", {"A": "$5", "B": "5"}) is None


def test_a_claim_s_own_text_does_not_contradict_it() -> None:
    texts = {"A": "C", "B": "D", "C": "A is correct", "D": "(C)"}
    assert parse_choice("The answer is B: D", "ABCD", texts) == "B"
    assert parse_choice("The answer is C. A is correct", "ABCD", texts) == "C"
    assert parse_choice("(D) (C)", "ABCD", texts) == "D"


def test_labels_may_be_words() -> None:
    options = ("gold", "golden", "salt")
    assert parse_choice(" golden", options) == "golden"
    assert parse_choice("The answer is gold.", options) == "gold"
    for said in ("gold salt", "gold. salt", "gold or salt", "Gold", "golde"):
        assert parse_choice(said, options) is None


def test_option_texts_are_read_back_from_the_layout_only() -> None:
    assert option_texts(PROMPT, "ABCD") == TEXTS
    assert option_texts("A. x\nB. y\n\nAnswer: ", "AB") is None
    assert option_texts("Answer:", "AB") is None
    assert option_texts(rendered("", "A. x\nB. y\n\nwhat?", {}), "AB") is None
    assert option_texts(PROMPT, "") is None


EQUATION = "Na2CrO4(aq) + 2LiBr(aq) = Li2CrO4(aq) + 2NaBr(s)"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (EQUATION, 1.0),
        (f" {EQUATION}\n", 1.0),
        (f"{EQUATION}.", 1.0),
        (f"{EQUATION}</s>", 1.0),
        (f"{EQUATION}\nThis is balanced, as both sides have 2 Li.", 1.0),
        (EQUATION.replace(" ", ""), 1.0),
        (EQUATION.replace(" + ", "  +\t"), 1.0),
        (EQUATION.replace("2LiBr", "2 LiBr"), 1.0),
        (EQUATION.replace("2LiBr", "LiBr"), 0.0),
        (EQUATION.replace("2LiBr", "22LiBr"), 0.0),
        (EQUATION.replace("2LiBr", "2L iBr"), 0.0),
        (EQUATION.replace("Na2CrO4(aq)", "Na 2CrO4(aq)"), 0.0),
        (EQUATION.replace("Na2CrO4(aq)", "Na2 CrO4(aq)"), 0.0),
        (EQUATION.lower(), 0.0),
        ("2LiBr(aq) + Na2CrO4(aq) = Li2CrO4(aq) + 2NaBr(s)", 0.0),
        ("2Na2CrO4(aq) + 4LiBr(aq) = 2Li2CrO4(aq) + 4NaBr(s)", 0.0),
        ("Li2CrO4(aq) + 2NaBr(s) = Na2CrO4(aq) + 2LiBr(aq)", 0.0),
        (f"It is {EQUATION}", 0.0),
        (f"{EQUATION} or not", 0.0),
        (f"not {EQUATION}", 0.0),
        (f"LiBr = NaBr\n{EQUATION}", 0.0),
        (EQUATION[:-1], 0.0),
        ("=", 0.0),
        ("", 0.0),
    ],
)
def test_a_text_is_right_when_its_first_line_is_the_answer(
    completion: str, expected: float
) -> None:
    question = Question("Balance it.\n\nAnswer:", f" {EQUATION}", frozenset({EQUATION}), "text")
    assert reward(question, completion) == expected


def test_an_echoed_prompt_with_the_answer_after_it_earns_nothing() -> None:
    question = Question("Balance it.\n\nAnswer:", f" {EQUATION}", frozenset({EQUATION}), "text")
    assert reward(question, question.prompt + question.answer) == 0.0
    question = Question("Name one. Answer:", " salt", frozenset({"salt"}), "open")
    assert reward(question, question.prompt + question.answer) == 0.0


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (" salt", 1.0),
        ("sea water", 1.0),
        (" sea  water .", 1.0),
        ("honey.", 1.0),
        ("honey<end>", 1.0),
        ("salt honey", 0.0),
        ("salt or honey", 0.0),
        ("salt\nhoney", 0.0),
        ("salt iron", 0.0),
        ("Salt", 0.0),
        ("salty", 0.0),
        ("sea", 0.0),
        ("not salt", 0.0),
        ("salt, because it is", 0.0),
        ("", 0.0),
        (".", 0.0),
    ],
)
def test_an_open_question_takes_one_valid_answer_and_nothing_else(
    completion: str, expected: float
) -> None:
    valid = frozenset({"salt", "honey", "sea water"})
    assert reward(Question("q", " salt", valid, "open"), completion) == expected


def test_nothing_is_right_when_nothing_is_valid() -> None:
    for kind in ("choice", "text", "open"):
        assert reward(Question("q", " ", frozenset({""}), kind, ("A",)), "") == 0.0


def test_an_unknown_kind_is_an_error_that_names_the_question() -> None:
    with pytest.raises(SpecificationError, match=r"rows\.jsonl:3: .* 'essay' has no reward"):
        reward(Question("q", " a", frozenset("a"), "essay", where="rows.jsonl:3"), "a")


def test_the_batch_function_takes_what_trl_passes() -> None:
    scored = reward_function(by_prompt([CHOICE]))
    given = scored(
        prompts=[PROMPT, PROMPT],
        completions=[" B", " A"],
        completion_ids=[[1], [2]],
        answer=["wrong on purpose", " B"],
        trainer_state=None,
        log_extra=print,
        log_metric=print,
    )
    assert given == [1.0, 0.0]


def test_the_batch_function_reads_chat_messages() -> None:
    scored = reward_function(by_prompt([CHOICE]))
    asked = [{"role": "system", "content": "B"}, {"role": "user", "content": PROMPT}]
    parts = [{"type": "text", "text": "The answer is "}, {"type": "text", "text": "B"}]
    said = [
        [{"role": "assistant", "content": "B"}],
        [{"role": "assistant", "content": "B"}, {"role": "assistant", "content": "A"}],
        [{"role": "assistant", "content": parts}],
        [{"role": "assistant", "content": None}],
        [],
    ]
    assert scored(prompts=[asked] * 5, completions=said) == [1.0, 0.0, 1.0, 0.0, 0.0]


def test_a_prompt_that_is_not_known_is_an_error() -> None:
    with pytest.raises(SpecificationError, match="no question has the prompt"):
        reward_function(by_prompt([CHOICE]))(prompts=["else"], completions=["B"])


def test_one_prompt_with_other_right_answers_is_an_error() -> None:
    other = Question(PROMPT, " C", frozenset("C"), "choice", tuple("ABCD"))
    with pytest.raises(SpecificationError, match="the same question as an earlier one"):
        by_prompt([CHOICE, other])
    both = frozenset({"salt", "honey"})
    drawn = [Question("q", f" {answer}", both, "open") for answer in sorted(both)]
    assert by_prompt(drawn) == {"q": drawn[0]}


@pytest.mark.parametrize(
    ("rewards", "complaint"),
    [
        ([[0.0, 0.0], [0.0, 0.0]], "all 4 completions of 2 prompts earned 0"),
        ([[1.0, 1.0]], "can do the task already"),
        ([[1.0, 1.0], [0.0, 0.0]], "raise the sampling temperature"),
        ([[1.0], [0.0]], "num_generations to 2"),
        ([], "no completion was rewarded"),
    ],
)
def test_rewards_that_teach_nothing_are_explained(
    rewards: list[list[float]], complaint: str
) -> None:
    message = check_learnable(rewards)
    assert message is not None
    assert message.startswith("nothing can be learned: ")
    assert complaint in message


def test_one_group_whose_rewards_differ_can_be_learned_from() -> None:
    assert check_learnable([[0.0, 0.0], [0.0, 1.0]]) is None
