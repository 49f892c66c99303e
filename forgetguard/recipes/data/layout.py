"""How a question becomes the text a model is given: instruction, question, options, answer cue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CUE = "Answer:"


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
