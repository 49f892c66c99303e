"""Documents of lm-eval tasks, and what models score on them: the data that measures/harness.py
makes and the measures `lm_eval.*` read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forgetguard.capabilities.pairs import Prompt, Question
from forgetguard.measures.samples import BASE, TUNED, FloatArray, Samples, Unit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from transformers import PreTrainedTokenizerBase

SCORE = "lm_eval.score"  # of each document, more is better
LIKELIHOOD = "lm_eval.likelihood"  # of what a document scores, all options together, in nats
# The largest probability of an option, each option's likelihood being a share of all options'.
CONFIDENCE = "lm_eval.confidence"
CHANCE = "lm_eval.chance"  # of being right by guessing, where there are options; else 0


@dataclass(frozen=True, slots=True)
class EvalTasks:
    """What a gate file asks lm-eval for.

    tasks: names of tasks, groups or tags. include: a folder of task files. questions_file: rows of
    one's own, `questions` its content as read with the gate file; both paths are absolute. limit:
    so many documents of each task, drawn with `seed`; None: all. metrics: the names of those that
    count; none: each that is a number a document.
    """

    tasks: tuple[str, ...] = ()
    include: Path | None = None
    questions_file: Path | None = None
    questions: tuple[Question, ...] = field(default=(), compare=False, repr=False)
    limit: int | None = None
    seed: int = 0
    chat_template: bool = False
    metrics: tuple[str, ...] = ()
    batch_size: int = 1
    line: int = field(default=0, compare=False)

    @property
    def questions_name(self) -> str:
        """What rows of one's own are called as a task."""
        return "" if self.questions_file is None else self.questions_file.stem


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Tasks with their data, and the documents that were drawn.

    tasks: lm-eval's task objects by name. drawn: places of the documents by task, ascending. units:
    all of them, task by task. tokenizers: by role. left_out: metrics of all documents together,
    which cannot be paired document by document, as `task metric`.
    """

    asked: EvalTasks
    tasks: Mapping[str, Any]
    drawn: Mapping[str, tuple[int, ...]]
    units: tuple[Prompt, ...]
    tokenizers: Mapping[str, PreTrainedTokenizerBase]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What one model came to on all documents.

    of: SCORE, LIKELIHOOD (where nothing is generated), CHANCE and CONFIDENCE, float64 [unit] by
    subject: `task metric`, with the filter where there are several, `task calibration` for
    CONFIDENCE, of tasks with options; 0 on documents of other tasks. prompts: lm-eval's hash of
    each document's prompt, [unit]. role: the model's.
    """

    of: Mapping[str, Mapping[str, FloatArray]]
    prompts: tuple[str, ...]
    role: str


def document(task: str, place: int, digest: str, text: str) -> Prompt:
    """A document as a unit: its task (a name without spaces), its place among the task's, a digest
    of what the task makes of it, and its text."""
    return Prompt(f"{task} #{place} ({digest}): {text}")


def places_of(units: Sequence[Unit], subject: str) -> npt.NDArray[np.bool_]:
    """Which units are documents of the subject's task, bool [unit]."""
    import numpy as np

    name = subject.partition(" ")[0]
    return np.array([unit.clean.partition(" #")[0] == name for unit in units], dtype=bool)


def is_right_or_wrong(score: FloatArray) -> bool:
    """Whether every score is 0 or 1."""
    import numpy as np

    return bool(np.isin(score, (0.0, 1.0)).all())


def lost(samples: Samples) -> FloatArray | None:
    """The most that tuned lost of any score of a unit, [unit]; None where there are no scores."""
    import numpy as np

    found = [
        values - samples.need(SCORE, key.subject, TUNED)
        for key, values in samples.arrays.items()
        if (key.quantity, key.role) == (SCORE, BASE)
    ]
    return np.max(found, axis=0) if found else None
