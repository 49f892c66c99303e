"""Questions with their answers as text: evaluation data of one's own, without counterfactuals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, the right answer, and the options that it is one of (none: the model has to
    write it). `line` is where it was read from."""

    question: str
    answer: str
    options: tuple[str, ...] = ()
    line: int = 0
