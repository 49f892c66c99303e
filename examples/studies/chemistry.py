"""Chemistry counterfactuals and the new-task score of arXiv 2605.28860, from rows of one's own:
`python -m examples.studies.chemistry CHECKPOINT ROWS.jsonl PAIRS.jsonl`.

Rows are SciKnowEval's multiple choice (forgetguard/recipes/data/sciknoweval.py). The paper's three
swaps are known by name alone; here they are, each so that the counterfactual has its own right
answer and that every token stays in its place:

    molecule    the same question of another row's molecule; the options are those of both rows
    task type   another row's question of the same molecule; the options are those of both rows
    answer key  the texts of the right option and of a wrong one change places; the letter is asked

Answers are option texts (readout: logprob), but for the last, whose text would not change. The
score is the share of rows whose right option has the highest geometric-mean probability.
"""

from __future__ import annotations

import json
import random
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from examples.studies.command import Say, carry_out
from examples.studies.drift.sampled import score_completions
from forgetguard.anatomy.locate import Anatomy, locate
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.checkpoints.loading import load_model
from forgetguard.checkpoints.spec import resolve
from forgetguard.checkpoints.tokenizers import load_tokenizer
from forgetguard.errors import CapabilityError, MeasurementError
from forgetguard.measures.divergence import FloatArray, by_passage, passage
from forgetguard.recipes.data.sciknoweval import read_questions
from forgetguard.whole_files import write_text

Length = Callable[[str], int]  # of a text, in tokens
_QUOTED = re.compile(r"""^(.*?["'])(.+)(["'].*)$""", re.S)  # the molecule, and what is around it


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its options; `right` is one of them."""

    question: str
    options: tuple[str, ...]
    right: str

    @property
    def parts(self) -> tuple[str, str, str] | None:
        """What stands before the molecule, the molecule, what stands behind it; None where no name
        is quoted."""
        found = _QUOTED.match(self.question)
        return None if found is None else (found[1], found[2], found[3])

    def prompt(self, options: Sequence[str] | None = None) -> str:
        """The question with its options, up to the answer, which begins with a space."""
        listed = "\n".join(options or self.options)
        return f"{self.question}\n{listed}\nAnswer:"


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows with options of a file.

    Raises:
        SpecificationError: all that is wrong with the file's rows, by file and line.
    """
    read_questions(path)
    found = []
    for line in path.read_text("utf-8").splitlines():
        row: dict[str, Any] = json.loads(line) if line.strip() else {}
        choices = row.get("choices", {})
        if choices.get("text"):
            right = choices["text"][choices["label"].index(row["answerKey"])]
            found.append(Row(row["question"].strip(), tuple(choices["text"]), right))
    return tuple(found)


def molecule_swaps(rows: Sequence[Row], length: Length, rng: random.Random) -> Iterator[PromptPair]:
    """Pairs of rows whose questions differ in the molecule alone, by as many tokens."""
    yield from _of_two(rows, lambda before, _, after: (before, after), length, rng, "molecule")


def task_swaps(rows: Sequence[Row], length: Length, rng: random.Random) -> Iterator[PromptPair]:
    """Pairs of rows that ask two things of the same molecule, in as many tokens before and after
    it."""
    yield from _of_two(rows, lambda _, molecule, __: molecule, length, rng, "task type")


def _of_two(
    rows: Sequence[Row],
    same: Callable[[str, str, str], object],
    length: Length,
    rng: random.Random,
    template: str,
) -> Iterator[PromptPair]:
    groups: dict[object, list[Row]] = {}
    for row in rows:
        if row.parts is not None:
            place = tuple(map(length, row.parts))
            groups.setdefault((same(*row.parts), place), []).append(row)
    for group in groups.values():
        for one, other in combinations(group, 2):
            clear = one.right not in other.options and other.right not in one.options
            if one.question == other.question or not clear:
                continue
            wrong = [text for row in (one, other) for text in row.options if text != row.right]
            options = [one.right, other.right, *dict.fromkeys(wrong)][:4]
            rng.shuffle(options)
            clean, swapped = one.prompt(options), other.prompt(options)
            yield PromptPair(clean, swapped, f" {one.right}", f" {other.right}", template)


def key_swaps(rows: Sequence[Row], length: Length, rng: random.Random) -> Iterator[PromptPair]:
    """Each row once, the right option in the place of a wrong one of as many tokens."""
    for row in rows:
        wrong = [
            text for text in row.options if text != row.right and length(text) == length(row.right)
        ]
        if not wrong:
            continue
        other = rng.choice(wrong)
        swapped = {row.right: other, other: row.right}
        sides = row.options, tuple(swapped.get(text, text) for text in row.options)
        clean, counterfactual = (
            row.prompt(
                [f"{letter}. {text}" for letter, text in zip("ABCDEFGH", side, strict=False)]
            )
            for side in sides
        )
        answer, distractor = (f" {'ABCDEFGH'[side.index(row.right)]}" for side in sides)
        yield PromptPair(clean, counterfactual, answer, distractor, "answer key")


SWAPS = {"molecule": molecule_swaps, "task type": task_swaps, "answer key": key_swaps}


def geometric_means(anatomy: Anatomy, tokenizer: Any, rows: Sequence[Row]) -> list[FloatArray]:
    """The mean log-probability in nats of each option's tokens after the row's prompt, by row,
    float64 [option].

    Raises:
        CapabilityError: an option is tokenised together with the prompt's end.
    """
    passages = []
    for row in rows:
        before = tokenizer(row.prompt())["input_ids"]
        for text in row.options:
            whole = tokenizer(f"{row.prompt()} {text}")["input_ids"]
            if whole[: len(before)] != before or len(whole) == len(before):
                raise CapabilityError(
                    f"the option {text!r:.60} is tokenised together with the prompt's end, or to "
                    "nothing: reword it"
                )
            passages.append(passage(before, whole[len(before) :]))
    found = score_completions(anatomy, passages)
    count = by_passage(found.log_probability**0, found.passage)
    means, at = by_passage(found.log_probability, found.passage) / count, 0
    by_row = []
    for row in rows:
        by_row.append(means[at : at + len(row.options)])
        at += len(row.options)
    return by_row


def ranked_first(rows: Sequence[Row], means: Sequence[FloatArray]) -> float:
    """The share of rows whose right option has the highest mean; one of k that are level is 1 / k
    of one.

    Raises:
        MeasurementError: there are no rows.
    """
    if not rows:
        raise MeasurementError("there is no row with options to rank: give some")
    found = 0.0
    for row, values in zip(rows, means, strict=True):
        level = values == values.max()
        found += float(level[row.options.index(row.right)]) / float(level.sum())
    return found / len(rows)


def _carry_out(checkpoint: str, source: Path, target: Path, limit: int, say: Say) -> None:
    rows = read_rows(source)
    spec = resolve(checkpoint, "base")
    tokenizer = load_tokenizer(spec)

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    lines = []
    for name, make in SWAPS.items():
        made = list(make(rows, length, random.Random(name)))
        say(f"{name}: {len(made)} pairs of {len(rows)} rows")
        keys = ("clean", "counterfactual", "answer", "distractor", "template")
        lines += [json.dumps({key: getattr(one, key) for key in keys}) for one in made]
    write_text(target, "\n".join(lines) + "\n")
    chosen = random.Random(0).sample(rows, min(limit, len(rows)))
    means = geometric_means(locate(load_model(spec)), tokenizer, chosen)
    print(f"right option ranked first: {ranked_first(chosen, means):.3f} of {len(chosen)} rows")


def main() -> int:
    """Write pairs of all three kinds, and say how the checkpoint ranks the rows."""
    parser = ArgumentParser(prog="python -m examples.studies.chemistry")
    parser.add_argument("checkpoint", help="whose tokenizer says what aligns, and who is scored")
    parser.add_argument("rows", type=Path, help="SciKnowEval rows, JSONL")
    parser.add_argument("pairs", type=Path, help="where to write prompt pairs, JSONL")
    parser.add_argument("--limit", type=int, default=200, help="rows that are scored (200)")
    given = parser.parse_args()
    return carry_out(
        lambda say: _carry_out(given.checkpoint, given.rows, given.pairs, given.limit, say)
    )


if __name__ == "__main__":
    sys.exit(main())
