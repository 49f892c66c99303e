"""The run card: what made a checkpoint, written beside its weights, read back and verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgetguard.checkpoints.fingerprint import Fingerprint, fingerprint
from forgetguard.checkpoints.spec import resolve_directory
from forgetguard.errors import CheckpointError, SpecificationError
from forgetguard.gate.records import dump, load
from forgetguard.recipes.data.question import Question
from forgetguard.report import json_file
from forgetguard.whole_files import write_text

CARD = "run_card.json"
SCHEMA = "forgetguard.run_card"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunCard:
    """What a training run was, in plain values.

    Attributes:
        settings: as `settings.as_dict` gives them, without the output folder.
        data: `hash_questions` of everything trained on.
        base, final: fingerprints of the base and of the weights beside the card.
        start: fingerprint of the checkpoint that training started from, where that is not the base.
        versions: of Python and the distributions that can change a number.
        steps: updates taken.
        seconds: of wall time spent on the steps that count, over all the runs that it took.
        losses: for every term of the loss log its `first`, `last`, `lowest` and `highest` value.
        seed: the settings' one.
        notes: what the recipe found out on the way (rows left out, a temperature).
    """

    settings: Mapping[str, Any]
    data: str
    base: Fingerprint
    final: Fingerprint
    versions: Mapping[str, str]
    steps: int
    seconds: float
    losses: Mapping[str, Mapping[str, float]]
    seed: int
    notes: Mapping[str, Any] = field(default_factory=dict)
    start: Fingerprint | None = None


def hash_questions(*sets: Sequence[Question]) -> str:
    """sha256, in hexadecimal, of sets of questions and their order; where they were read from and
    how they were grouped for splitting is no part of it."""
    total = hashlib.sha256()
    for questions in sets:
        total.update(b"set")
        for one in questions:
            parts = [one.prompt, one.answer, sorted(one.valid), one.kind, list(one.options)]
            total.update(json.dumps(parts).encode() + b"\n")
    return total.hexdigest()


def summarise(records: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """First, last, lowest and highest value of every term of a loss log, but its step."""
    terms: dict[str, list[float]] = {}
    for record in records:
        for key, value in record.items():
            if key != "step":
                terms.setdefault(key, []).append(float(value))
    return {
        key: {"first": seen[0], "last": seen[-1], "lowest": min(seen), "highest": max(seen)}
        for key, seen in terms.items()
    }


def write_card(folder: Path, card: RunCard) -> None:
    """Write the card into `folder`, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    document = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **dump(card)}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / CARD, text + "\n")


def read_card(folder: Path) -> RunCard:
    """The card of the checkpoint in `folder`.

    Raises:
        CheckpointError: there is none, or it is not a card that this version writes.
    """
    file = folder / CARD
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no {CARD}: it is no finished training run; run the recipe again"
        )
    try:
        read = json_file.read_document(file, SCHEMA, SCHEMA_VERSION, "run card")
        del read["schema"], read["schema_version"]
        return load(RunCard, read, "a run card")
    except (SpecificationError, KeyError) as error:
        raise CheckpointError(
            f"{file} is not a run card as {SCHEMA} version {SCHEMA_VERSION} writes it ({error}): "
            f"was it edited, or written by another version?"
        ) from error


def verify_card(folder: Path) -> RunCard:
    """The card of the checkpoint in `folder`, whose weights are those that it names.

    Raises:
        CheckpointError: no card, weights that cannot be read, or other ones than the card's.
    """
    card = read_card(folder)
    found = final_fingerprint(folder)
    if found != card.final:
        parts = [
            part
            for part in ("weights", "tokenizer", "config")
            if getattr(found, part) != getattr(card.final, part)
        ]
        raise CheckpointError(
            f"{folder}: its {' and '.join(parts)} are not those of its {CARD}: something has "
            f"changed them since training; move the folder away and train again"
        )
    return card


def final_fingerprint(folder: Path) -> Fingerprint:
    """Of the checkpoint in `folder` (raises CheckpointError)."""
    return fingerprint(resolve_directory(folder, given=str(folder), role="tuned"))
