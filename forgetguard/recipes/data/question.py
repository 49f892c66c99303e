"""One question of a training set: what the model is given, how it is laid out, and what counts as a
right answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

CUE = "Answer:"


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

    @property
    def place(self) -> str:
        """Where it was read, or how it begins."""
        return self.where or repr(self.prompt[:60])


def contradictions(questions: Iterable[Question]) -> list[str]:
    """Prompts given twice with other right answers."""
    first: dict[str, Question] = {}
    found = []
    for question in questions:
        before = first.setdefault(question.prompt, question)
        one, other = ((each.kind, each.valid, each.options) for each in (before, question))
        if one != other:
            found.append(
                f"{question.place}: the same question as {before.where or 'an earlier one'} with "
                f"the right answers {sorted(question.valid)}, there {sorted(before.valid)}: remove "
                "one of them"
            )
    return found


def rendered(instruction: str, question: str, options: Mapping[str, str]) -> str:
    """The one layout of all science questions: blocks apart by an empty line, the cue last.

    The instruction comes first, then the question, the options by label (one a line, "A. text") and
    "Answer:", after which the answer follows with its own leading space. Empty parts are left out.
    """
    listed = "\n".join(f"{label}. {text}" for label, text in options.items())
    return "\n\n".join(part for part in (instruction, question, listed, CUE) if part)


def option_texts(prompt: str, labels: Sequence[str]) -> dict[str, str] | None:
    """The option texts by label that `rendered` put into a prompt; None if it holds no such list.

    The list is looked for where `rendered` puts it, right before the cue, so that a question that
    itself has lines like "A. text" is read correctly.
    """
    *before, gap, cue = ["", "", *prompt.split("\n")]
    listed = before[-len(labels) :] if labels else []
    if gap or cue != CUE or len(listed) != len(labels) or not labels:
        return None
    starts = [f"{label}. " for label in labels]
    if not all(line.startswith(start) for line, start in zip(listed, starts, strict=True)):
        return None
    return {
        label: line[len(start) :] for label, line, start in zip(labels, listed, starts, strict=True)
    }
