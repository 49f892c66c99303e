"""The reward of an answer: 1 when the completion states a right answer as its own, else 0.

What is read is the completion, never the prompt, by the grammars of `parse_choice`, `says_text` and
`says_only`. Nothing is searched for as a substring. Light: no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from forgetguard.errors import SpecificationError
from forgetguard.recipes.data.question import Question, contradictions, option_texts

# Where a model stops, should a decoder leave it in the text; what follows is not its answer.
ENDS = (
    "<|im_end|> <|endoftext|> <|end_of_text|> <|eot_id|> <end_of_turn> </s> <eos> <end>"
).split()

_CARRIER = (
    r"(?:(?i:so|thus|therefore|hence|finally),?\s)?"
    r"(?:(?i:(?:(?:the|my)\s)?(?:(?:final|correct|right|best)\s)*(?:answer|option|choice)"
    r"(?:\sis(?:\s?:\s?|\s)|\s?[:=]\s?)))?"
    r"(?:(?i:option|choice)\s)?"
)
# Repeats are bounded, here and below, so that the time to search a line grows with its length only.
_GAP = r"\W{1,20}"
_LINKS = (
    r"(?:(?:is|are|be|must|should|would|could|might|may|also|either|both|probably|likely|"
    rf"options?|choice){_GAP}){{0,8}}"
)


# What TRL's GRPOTrainer calls: everything by keyword, a dataset's columns among it.
RewardFunction = Callable[..., list[float]]


def reward(question: Question, completion: str) -> float:
    """1.0 if the answer that the completion states is right, else 0.0; no answer is not right.

    Raises:
        SpecificationError: the question's kind is none of "choice", "text" and "open".
    """
    if question.kind == "choice":
        texts = option_texts(question.prompt, question.options) or {}
        right = parse_choice(completion, question.options, texts) in question.valid
    elif question.kind == "text":
        right = says_text(completion, question.valid)
    elif question.kind == "open":
        right = says_only(completion, question.valid)
    else:
        raise SpecificationError(
            f"{question.place}: a question of kind {question.kind!r} has no reward: the kinds are "
            "choice, text and open"
        )
    return float(right)


def parse_choice(
    completion: str, options: Sequence[str], texts: Mapping[str, str] | None = None
) -> str | None:
    """The one option label that a completion claims, or None.

    The completion ends at the first end-of-text mark (`ENDS`). A claim is a whole line (surrounding
    space, `**`, backticks and `$` left out of account) of the form

        line    = [so] [carrier] ["option" | "choice"] mark ["." | "!"]
        so      = ("so" | "thus" | "therefore" | "hence" | "finally") [","]
        carrier = ["the" | "my"] {"final" | "correct" | "right" | "best"}
                  ("answer" | "option" | "choice") ("is" | "is:" | ":" | "=")
        mark    = shape ["." | ")" | ":"]
                | LABEL ("." | ")" | ":") text | "(" LABEL ")" ["." | ":"] text
        shape   = LABEL | "(" LABEL ")" | "[" LABEL "]" | '"' LABEL '"' | "'" LABEL "'"
                | "\\boxed{" LABEL "}" | "\\boxed{\\text{" LABEL "}}"

    where LABEL is a label in its own case and its own characters ("b" and the full-width letter are
    no "B"), text is that option's whole text and the other words are in any case. A completion that
    is nothing but an option's text (and "." or not) claims its label. "B. " and another text, "not
    B" and "B, because ..." claim nothing.

    Whatever is claimed, two different labels are no answer. Prose claims nothing by itself but can
    contradict a claim: "answer is X", "\\boxed{X}" and "X (or Y) is correct" anywhere in a line.
    So can, with no texts known, a line of a label, ".", ")" or ":" and any text.

    Args:
        completion: what the model wrote, without the prompt.
        options: the labels.
        texts: the options' texts by label, as far as known.
    """
    lines = _lines(completion)
    if not lines or not options:
        return None
    texts = {label: _plain(text) for label, text in (texts or {}).items()}
    claimed = [{label for label in options if _claims(line, label, texts)} for line in lines]
    claims = set().union(*claimed)
    if not claims and len(lines) == 1:
        claims = {
            label
            for label in options
            if (text := texts.get(label)) and lines[0] in (text, f"{text}.")
        }
    prose = [line for line, found in zip(lines, claimed, strict=True) if not found]
    mentioned = {label for line in prose for label in _mentions(line, options, texts)}
    return min(claims) if len(claims) == 1 and mentioned <= claims else None


def says_text(completion: str, valid: Iterable[str]) -> bool:
    """Whether the completion's first non-empty line is one of the valid texts, whole.

    Case, order and every character count, but for: white space is collapsed and dropped around "+"
    and "=" and between a coefficient and its formula ("2 H2O"), and one full stop may follow. An
    equation with other coefficients, all of them doubled included, is another answer. Lines after
    the first are not read: the first decides, so there is nothing to gain by listing answers.
    """
    lines = _lines(completion, plain=False)
    return bool(lines) and _is_one_of(lines[0], valid, _equation)


def says_only(completion: str, valid: Iterable[str]) -> bool:
    """Whether the completion is one of the valid answers and nothing else.

    White space is collapsed and one full stop may follow; case counts. A second answer, right or
    wrong, an explanation or a further line makes it none.
    """
    return _is_one_of(_ended(completion), valid, lambda text: " ".join(text.split()))


def by_prompt(questions: Sequence[Question]) -> dict[str, Question]:
    """Questions by their prompts; the first of those that differ in nothing but the label drawn.

    Raises:
        SpecificationError: one prompt asks for different answers.
    """
    if wrong := contradictions(questions):
        raise SpecificationError(wrong[0])
    found: dict[str, Question] = {}
    for question in questions:
        found.setdefault(question.prompt, question)
    return found


def reward_function(questions: Mapping[str, Question]) -> RewardFunction:
    """The reward as TRL's GRPOTrainer calls it, for questions by their prompts (`by_prompt`).

    Prompts and completions are texts or lists of chat messages; of messages, the content of the
    last is read (of a prompt, it must be the question's prompt). A dataset's further columns are
    not read. TRL logs it as "right_answer".

    What it returns raises:
        SpecificationError: a prompt is none of the questions'.
    """

    def right_answer(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: object
    ) -> list[float]:
        rewards = []
        for prompt, completion in zip(map(_content, prompts), completions, strict=True):
            if prompt not in questions:
                raise SpecificationError(
                    f"no question has the prompt {prompt[:80]!r}...: build the reward from the "
                    "questions that the training set was made of, prompts unchanged"
                )
            rewards.append(reward(questions[prompt], _content(completion)))
        return rewards

    return right_answer


def check_learnable(rewards: Iterable[Sequence[float]]) -> str | None:
    """Why groups of rewards (one group a prompt) teach nothing, or None if some group can.

    GRPO's advantage is a reward minus its group's mean (2402.03300; Dr.GRPO, 2503.20783, the
    same without the division): where all rewards of a group are equal, it is zero.
    """
    groups = [tuple(group) for group in rewards if len(group)]
    if any(len(set(group)) > 1 for group in groups):
        return None
    if not groups:
        return "nothing can be learned: no completion was rewarded; give prompts to learn from"
    if all(len(group) == 1 for group in groups):
        return (
            "nothing can be learned: each prompt has one completion, and a reward is compared "
            "with those of its group; set num_generations to 2 or more"
        )
    values = {group[0] for group in groups}
    count = f"all {sum(map(len, groups))} completions of {len(groups)} prompts"
    if values == {0.0}:
        return (
            f"nothing can be learned: {count} earned 0, so the base's success rate is near 0 and "
            "no answer is better than another; train with SFT first (sft-rl), take an easier task, "
            "sample more completions a prompt, or look whether the answers are in a form that the "
            "reward reads"
        )
    if values == {1.0}:
        return (
            f"nothing can be learned: {count} earned 1, so the base can do the task already; take "
            "a harder task"
        )
    return (
        f"nothing can be learned: within each of {len(groups)} prompts all completions earned the "
        "same, so no answer is better than another; raise the sampling temperature or the number "
        "of completions a prompt"
    )


def _claims(line: str, label: str, texts: Mapping[str, str]) -> bool:
    """Whether a whole line claims a label; the grammar is `parse_choice`'s."""
    if label not in line:
        return False
    one, text = re.escape(label), texts.get(label, "")
    quoted = [rf"\({one}\)", rf"\[{one}\]", f'"{one}"', f"'{one}'"]
    boxed = [rf"\\boxed\{{{one}\}}", rf"\\boxed\{{\\text\{{{one}\}}\}}"]
    shape = "|".join([one, *quoted, *boxed])
    forms = rf"(?:{shape})[.):]?"
    if text:
        forms = rf"(?:{forms}|(?:{one}[.):]|\({one}\)[.:]?)\s*{re.escape(text)})"
    return bool(re.fullmatch(rf"{_CARRIER}{forms}[.!]?", line))


def _mentions(line: str, options: Sequence[str], texts: Mapping[str, str]) -> set[str]:
    """The labels that prose names as the answer: they cannot be an answer, only contradict one."""
    one = rf"(?<!\w)(?:{'|'.join(re.escape(label) for label in options)})(?![\w=#@(\[])"
    several = rf"{one}(?:{_GAP}(?:(?:or|and){_GAP})?{one}){{0,30}}"
    found = re.findall(
        rf"(?i:\banswers?{_GAP}{_LINKS})({several})"
        rf"|\\boxed\{{(?:\\text\{{)?({several})"
        rf"|({several}){_GAP}(?i:(?:is|are)\s(?:(?:also|all|both|the)\s){{0,3}}"
        r"(?:right|correct|answer))\b",
        line,
    )
    mentioned = {label for groups in found for part in groups for label in re.findall(one, part)}
    unknown = [label for label in options if label not in texts]
    listed = (label for label in unknown if re.match(rf"\(?{re.escape(label)}[.):]", line))
    return mentioned | set(listed)


def _lines(completion: str, *, plain: bool = True) -> list[str]:
    """The non-empty lines up to the end-of-text mark, their space collapsed."""
    lines = (" ".join(line.split()) for line in _ended(completion).splitlines())
    return [line for line in (map(_plain, lines) if plain else lines) if line]


def _is_one_of(said: str, valid: Iterable[str], normal: Callable[[str], str]) -> bool:
    """Whether a text, with a full stop or without, is one of the valid ones, all made `normal`."""
    said, wanted = normal(said), {normal(text) for text in valid} - {""}
    return said in wanted or said.removesuffix(".").rstrip() in wanted


def _ended(completion: str) -> str:
    return re.split("|".join(map(re.escape, ENDS)), completion, maxsplit=1)[0]


def _plain(line: str) -> str:
    """A line without the marks of bold, code and mathematics, which options may be wrapped in."""
    return " ".join(re.sub(r"\*\*|[`$]", "", line).split())


def _equation(line: str) -> str:
    closed = re.sub(r"\s*([+=])\s*", r"\1", " ".join(line.split()))
    return re.sub(r"(?<![^+=])(\d+) (?=[A-Z(\[])", r"\1", closed)


def _content(text: Any) -> str:
    """A text, the content of the last of some chat messages, or the text of a message's parts."""
    if isinstance(text, str):
        return text
    if not text:
        return ""
    if "content" in text[-1]:
        return _content(text[-1]["content"])
    return "".join(part.get("text") or "" for part in text)
