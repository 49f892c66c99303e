"""Prompt pairs, prompts and questions as text, before any tokenizer has seen them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

# Whether prompts are wrapped by the tokenizer's chat template, or with which arguments to it.
ChatTemplate: TypeAlias = bool | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PromptPair:
    """A clean prompt x, its counterfactual x', the answer y to x and, where there is one, the
    distractor y' (the answer to x').

    Answers are continuations of the prompt and carry their own leading space where the text needs
    one: the scored text is `clean + answer`. Where several are right, `answers` are the further
    ones and `distractors` the further wrong ones, each one token (readout log_odds takes them all
    together). `template` names the sentence frame a pair was made
    from: pairs of one template are not independent draws. `classes` says by name what else pairs
    have in common (which list the answer is of, which order, which relation, ...), so that a loss
    can be told to lie in one class of them. `line` is where the pair was read from.
    """

    clean: str
    counterfactual: str
    answer: str
    distractor: str | None = None
    template: str = ""
    line: int | None = field(default=None, compare=False)
    answers: tuple[str, ...] = ()
    distractors: tuple[str, ...] = ()
    classes: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt by itself, for measures that compare what two models predict. With a `completion`
    they are compared where its tokens are predicted, else where the prompt's next token is.
    `template` and `line` as of a pair."""

    clean: str
    completion: str = ""
    template: str = ""
    line: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer, without a counterfactual: evaluation data of one's own.

    What is asked, the right answer, and the options that it is one of (none: the model has to write
    it). `line` is where it was read from."""

    question: str
    answer: str
    options: tuple[str, ...] = ()
    line: int = 0
