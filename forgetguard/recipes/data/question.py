"""One question of a training set: what the model is given and what counts as a right answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, its training label and every answer that counts as right.

    ``prompt`` is everything the model is given, options rendered in it, up to where the answer
    begins. ``answer`` is the training label, with its own leading space where the text needs one.
    ``valid`` holds all answers that count as right, without surrounding space; ``answer.strip()``
    is one of them. ``kind`` is "choice", "text" or "open" (several valid answers). ``options``
    are the labels that may be answered, for kind "choice". Questions of one non-empty ``group``
    (duplicates) stay on one side of a split. ``where`` is the file and line it was read from.
    """

    prompt: str
    answer: str
    valid: frozenset[str]
    kind: str
    options: tuple[str, ...] = ()
    group: str = ""
    where: str = ""
