"""What was declared, read and decided as plain values, and back: what files hold and what crosses
between processes.

Numbers stay exact: a float is written as the shortest decimal that reads back as the same float
(Python's `repr`, which JSON uses). Numbers that are not finite become "nan", "inf" or "-inf".
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import ChatTemplate, Prompt, PromptPair
from forgetguard.errors import SpecificationError
from forgetguard.gate.checksum import digest, digest_file
from forgetguard.gate.declaration import (
    FilePairs,
    GateSpec,
    InlinePairs,
    Limit,
    Prompts,
    Source,
    TaskPairs,
)
from forgetguard.gate.verdict import Verdict
from forgetguard.measures.documents import EvalTasks
from forgetguard.measures.samples import Control, Key, Note, Samples, Unit

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Plain values only: numpy scalars become Python's, tuples lists, numbers that JSON cannot
    write text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


@functools.cache  # slow to make
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("type[Any]", kind))


def dump(value: Any) -> Any:
    """A dataclass of this package in plain values."""
    # numpy's scalars are no surprise worth a warning: `plain` makes them Python's.
    return plain(
        _adapter(cast("Hashable", type(value))).dump_python(value, mode="python", warnings=False)
    )


def load(kind: type[T], data: Any, what: str) -> T:
    """The inverse of `dump`.

    Raises:
        SpecificationError: `data` lacks a field or holds a value that no such thing has.
    """
    try:
        found: T = _adapter(cast("Hashable", kind)).validate_python(data)
        return found
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise SpecificationError(
            f"not {what}: {where}: {first['msg']}: was the file edited by hand or written by "
            "another version?"
        ) from error


# --- verdicts --------------------------------------------------------------------------------


def verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict in plain Python values, so that JSON and process boundaries take it."""
    found: dict[str, Any] = dump(verdict)
    return found


def verdict_from_dict(data: Mapping[str, Any]) -> Verdict:
    """The inverse of `verdict_to_dict` (raises SpecificationError: `data` is no verdict)."""
    return load(Verdict, data, "a verdict")


# --- the gate file as declared ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tasks:
    """What `lm_eval:` of a gate file says beside what all sources of prompts do."""

    tasks: tuple[str, ...] = ()
    include: Path | None = None
    chat_template: bool = False
    metrics: tuple[str, ...] = ()
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class _Source:
    """Where prompts come from; they themselves are with the samples."""

    kind: Literal["task", "file", "prompts", "inline", "lm_eval", "none"]
    task: str | None = None
    count: int | None = None
    seed: int = 0
    most: int | None = None
    line: int = 0
    path: Path | None = None
    sha256: str | None = None
    lm_eval: _Tasks | None = None


@dataclass(frozen=True, slots=True)
class _Declared:
    name: str
    capability: str
    readout: str
    chat_template: ChatTemplate
    site: str
    confidence: float
    prompt_seed: int | None
    auto: bool
    members: tuple[Member, ...]
    limits: tuple[Limit, ...]
    pairs: _Source
    file: Path | None
    file_sha256: str | None
    one_by_one: tuple[Member, ...] = ()  # the members that are judged alone, where not all are


# Fields that a gate file has, and what is written of it has too, alike.
_ALIKE = _Declared.__dataclass_fields__.keys() & GateSpec.__dataclass_fields__.keys()
_ALIKE -= {"pairs", "one_by_one"}


def spec_to_dict(spec: GateSpec) -> dict[str, Any]:
    """What a gate file declares, with its members (also those that `circuit: auto` stood for), its
    limits and the hashes of the file and of its prompt file."""
    declared = _Declared(
        **{name: getattr(spec, name) for name in _ALIKE},
        pairs=_source(spec.pairs),
        file=spec.path,
        file_sha256=digest_file(spec.path),
        one_by_one=() if spec.judges_all else spec.judged_alone,
    )
    found: dict[str, Any] = dump(declared)
    return found


def _source(given: Source | None) -> _Source:
    if isinstance(given, TaskPairs):
        return _Source("task", given.task, given.count, given.seed, given.most, given.line)
    if isinstance(given, FilePairs | Prompts):
        kind: Literal["file", "prompts"] = "file" if isinstance(given, FilePairs) else "prompts"
        most, sha256 = getattr(given, "most", None), digest_file(given.path)
        return _Source(kind, None, given.count, 0, most, given.line, given.path, sha256)
    if isinstance(given, EvalTasks):
        tasks = _Tasks(**{one.name: getattr(given, one.name) for one in fields(_Tasks)})
        path, sha256 = given.questions_file, digest_file(given.questions_file)
        limit, seed = given.limit, given.seed
        return _Source("lm_eval", None, limit, seed, None, given.line, path, sha256, tasks)
    return _Source("none" if given is None else "inline")


def spec_from_dict(data: Mapping[str, Any]) -> GateSpec:
    """The gate file, as far as its limits need it (raises SpecificationError: `data` is none)."""
    found = load(_Declared, data, "a gate file as it was declared")
    return GateSpec(
        **{name: getattr(found, name) for name in _ALIKE},
        pairs=_pairs(found.pairs),
        path=found.file,
        one_by_one=found.one_by_one or None,
    )


def _pairs(given: _Source) -> Source | None:
    count, seed, line, path = given.count, given.seed, given.line, given.path
    if given.kind == "lm_eval":
        more = asdict(given.lm_eval or _Tasks())
        return EvalTasks(questions_file=path, limit=count, seed=seed, line=line, **more)
    if given.kind == "task":
        return TaskPairs(given.task or "", count or 0, seed, line, given.most)
    if given.kind == "file":
        return FilePairs(path or Path(), count, line=line, most=given.most)
    if given.kind == "prompts":
        return Prompts(path=path, count=count, line=line)
    return InlinePairs(()) if given.kind == "inline" else None


# --- what was read ---------------------------------------------------------------------------

UnitTexts = list[str | list[str] | None]
Nested = dict[str, dict[str, dict[str, Any]]]  # by quantity, role, subject


@dataclass(frozen=True, slots=True)
class _Read:
    units: list[UnitTexts]
    prompts_sha256: str
    arrays: dict[str, dict[str, dict[str, list[float]]]]
    exact: dict[str, dict[str, dict[str, float]]]
    dropped: int
    notes: tuple[Note, ...]
    stages: tuple[int, ...]
    controls: tuple[Control, ...]
    tokens: dict[int, str] = field(default_factory=dict)
    classes: dict[str, list[str | None]] = field(default_factory=dict)


def samples_to_dict(samples: Samples) -> dict[str, Any]:
    """Everything that verdicts are decided on, unit by unit."""
    found: dict[str, Any] = dump(
        _Read(
            [unit_texts(unit) for unit in samples.units],
            digest_units(samples.units),
            _nested(samples.arrays),
            _nested(samples.exact),
            samples.dropped,
            samples.notes,
            samples.stages,
            samples.controls,
            dict(sorted(samples.tokens.items())),
            _classes(samples.units),
        )
    )
    return found


def samples_from_dict(data: Mapping[str, Any]) -> Samples:
    """The inverse of `samples_to_dict`.

    Raises:
        SpecificationError: `data` is none, or the hash of its prompts is not theirs.
    """
    found = load(_Read, data, "what was measured")
    units = _classed(tuple(map(_unit, found.units)), found.classes)
    if found.prompts_sha256 != digest_units(units):
        raise SpecificationError("the prompts of a measurement are not those of its prompts_sha256")
    arrays = {key: np.array(values, dtype=np.float64) for key, values in _flat(found.arrays)}
    wrong = [str(key) for key, values in arrays.items() if values.shape != (len(units),)]
    if wrong:
        raise SpecificationError(f"not what was measured: {wrong[0]} is not one number a prompt")
    return Samples(
        units,
        arrays,
        dict(_flat(found.exact)),
        found.dropped,
        found.notes,
        found.stages,
        found.controls,
        found.tokens,
    )


def _nested(flat: Mapping[Key, Any]) -> Nested:
    found: Nested = {}
    for key, value in flat.items():
        found.setdefault(key.quantity, {}).setdefault(key.role, {})[key.subject] = value
    return found


def _flat(nested: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[tuple[Key, Any]]:
    return [
        (Key(quantity, subject, role), value)
        for quantity, by_role in nested.items()
        for role, by_subject in by_role.items()
        for subject, value in by_subject.items()
    ]


def unit_texts(unit: Unit) -> UnitTexts:
    """Texts and template: what makes a unit. Three of a prompt, five of a pair, and two lists more
    of one with further answers or distractors."""
    if isinstance(unit, Prompt):
        return [unit.clean, unit.completion, unit.template]
    texts: UnitTexts = [
        unit.clean, unit.counterfactual, unit.answer, unit.distractor, unit.template
    ]  # fmt: skip
    if unit.answers or unit.distractors:
        texts += [list(unit.answers), list(unit.distractors)]
    return texts


def _unit(texts: UnitTexts) -> Unit:
    given = [text or "" for text in texts if not isinstance(text, list)]
    further = [tuple(text) for text in texts if isinstance(text, list)]
    if len(given) == 3 and not further:
        return Prompt(given[0], given[1], given[2])
    if len(given) != 5 or len(further) not in (0, 2):
        raise SpecificationError(f"not what was measured: {texts!r} is no prompt and no pair")
    distractor = given[3] if texts[3] is not None else None
    answers, distractors = further or ((), ())
    return PromptPair(
        given[0], given[1], given[2], distractor, given[4], None, answers, distractors
    )


def _classes(units: Sequence[Unit]) -> dict[str, list[str | None]]:
    """By name, the class of each unit, None where it has none: beside the texts, for a label is no
    part of what a pair is."""
    own = [unit.classes if isinstance(unit, PromptPair) else {} for unit in units]
    return {
        name: [one.get(name) for one in own]
        for name in dict.fromkeys(name for one in own for name in one)
    }


def _classed(
    units: tuple[Unit, ...], classes: Mapping[str, Sequence[str | None]]
) -> tuple[Unit, ...]:
    """The inverse (raises SpecificationError: one is not of these units)."""
    wrong = [name for name, values in classes.items() if len(values) != len(units)]
    if wrong:
        raise SpecificationError(f"not what was measured: classes.{wrong[0]} is not one a prompt")
    found: list[Unit] = []
    for at, unit in enumerate(units):
        own = {name: value for name, values in classes.items() if (value := values[at]) is not None}
        found.append(replace(unit, classes=own) if isinstance(unit, PromptPair) and own else unit)
    return tuple(found)


def digest_units(units: Sequence[Unit]) -> str:
    """sha256 of the texts of prompts or pairs, in any order: what a prompt set is."""
    ordered = sorted(map(unit_texts, units), key=lambda texts: [str(text or "") for text in texts])
    return digest(ordered)
