"""Prompt pairs, and prompts, as text: what a capability asks, before any tokenizer has seen it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PromptPair:
    """A clean prompt x, its counterfactual x', the answer y to x and, where there is one, the
    distractor y' (the answer to x').

    Answers are continuations of the prompt and carry their own leading space where the text needs
    one: the scored text is `clean + answer`. `template` names the sentence frame a pair was made
    from: pairs of one template are not independent draws. `line` is where the pair was read from.
    """

    clean: str
    counterfactual: str
    answer: str
    distractor: str | None = None
    template: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt by itself, for measures that compare what two models predict. With a `completion`
    they are compared where its tokens are predicted, else where the prompt's next token is.
    `template` and `line` as of a pair."""

    clean: str
    completion: str = ""
    template: str = ""
    line: int | None = None
