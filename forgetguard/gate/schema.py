"""`*.circuit.yaml` and `*.gate.yaml` files, read and written.

What they declare is in gate/declaration.py, what they ask of a base in gate/suitability.py. A gate
file is one without a circuit: it gives prompts instead of prompt pairs, or nothing to run a model
on, and may hold every measure that needs no more.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from forgetguard.anatomy.members import Member, parse_member
from forgetguard.capabilities.encoding import FEWEST_PAIRS as FEWEST_JUDGED
from forgetguard.capabilities.pairs import ChatTemplate, Prompt, PromptPair
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.gate import guard
from forgetguard.gate import yaml_lines as lines
from forgetguard.gate.declaration import (
    DEFAULT_CONFIDENCE,
    DEFAULT_FLOOR,
    SITES,
    FilePairs,
    Fits,
    GateSpec,
    InlinePairs,
    Limit,
    Prompts,
    Source,
    TaskPairs,
)
from forgetguard.gate.eval_tasks import dump_tasks, read_tasks
from forgetguard.gate.prompt_files import (
    FEWEST_PAIRS,
    PAIRS,
    PROMPTS,
    Item,
    Kind,
    check_pairs,
    check_prompts,
    read_entry,
    read_prompt_file,
    read_prompts,
)
from forgetguard.gate.yaml_lines import Fields, Problems, line_of
from forgetguard.measures import registry
from forgetguard.measures.documents import EvalTasks
from forgetguard.measures.measure import Estimator, Measure, Sampled
from forgetguard.whole_files import write_text

VERSION = 1  # of circuit files; gate files came with 2
VERSIONS = (1, 2)
CIRCUIT_SUFFIXES = (".circuit.yaml", ".circuit.yml")
GATE_SUFFIXES = (".gate.yaml", ".gate.yml")
SUFFIXES = CIRCUIT_SUFFIXES + GATE_SUFFIXES
MOST_GUARD = 10  # importances that one pair may lose
MOST_PAIRS = 100_000  # a slip of the keyboard beyond it, not a test
CONFIDENCES = (0.5, 0.999)  # beyond it the resampled tail holds too few draws
_KEYS = (
    "forgetguard", "name", "capability", "description", "fits", "core", "pairs",
    "chat_template", "readout", "circuit", "one_by_one", "site", "confidence", "limits", "found",
    "new_task",
)  # fmt: skip
_GATE_KEYS = (
    "forgetguard", "name", "capability", "description", "prompts", "pairs", "lm_eval",
    "chat_template", "readout", "confidence", "limits", "new_task",
)  # fmt: skip
_OUR_CHAT_ARGUMENTS = {"tokenize", "add_generation_prompt", "messages", "conversation"}
_FITS = ("alias", "architecture", "layers", "heads", "weights")
_REQUIRED = ("capability", "pairs", "readout", "circuit", "limits")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


# --- reading ---------------------------------------------------------------------------------


def load_gate_file(path: str | Path, *, judged: bool = True) -> GateSpec:
    """Read a circuit file or a gate file, and the prompt file it names; as `parse_gate`.

    Raises:
        SpecificationError: everything that is wrong with it, one `file:line: what` a line.
    """
    path = Path(path)
    return parse_gate(lines.read_text(path, "circuit file"), path, judged=judged)


def gate_files(path: Path, asked_by: str = "", advice: str = "") -> list[Path]:
    """The gate files that a path names: itself, or those in the folder, sorted.

    Raises:
        SpecificationError: there is none; the message begins with `asked_by`.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES))
        if not files:
            raise SpecificationError(
                f"{asked_by}{path}: no *{SUFFIXES[0]} in this folder; {advice}name another, or a "
                "file"
            )
        return files
    if not path.is_file():
        raise SpecificationError(
            f"{asked_by}{path} is neither a circuit or gate file, a folder of them nor KEY=VALUE; "
            "check the path"
        )
    if not path.name.endswith(SUFFIXES):
        raise SpecificationError(
            f"{asked_by}{path} does not end in {CIRCUIT_SUFFIXES[0]} or {GATE_SUFFIXES[0]}; rename "
            "it, so that it is found by its folder too"
        )
    return [path]


def parse_gate(text: str, path: str | Path, *, judged: bool = True) -> GateSpec:
    """Read a circuit file, or, where `path` ends in `.gate.yaml`, a gate file, from text; `path`
    names it in messages, and prompt files are looked up relative to its directory. Where it is not
    `judged`, but read for its pairs alone, it may lack a circuit and limits.

    Raises:
        SpecificationError: everything that is wrong with it, one `file:line: what` a line.
    """
    path = Path(path)
    problems = Problems(str(path))
    root = lines.compose(text, str(path))
    if root is None:
        raise SpecificationError(f"{path}:1: the file is empty: write e.g. forgetguard: {VERSION}")
    if not isinstance(root, yaml.MappingNode):
        raise SpecificationError(
            f"{path}:{line_of(root)}: a gate file must be a mapping (forgetguard: {VERSION}, "
            f"limits: ...), got {lines.shown(root)}"
        )
    is_gate = path.name.endswith(GATE_SUFFIXES)
    _check_version(root, str(path), VERSIONS[1:] if is_gate else VERSIONS)
    known, required = (_GATE_KEYS, ("limits",)) if is_gate else (_KEYS, _REQUIRED)
    given = lines.mapping(root, "", problems, known=known, required=required if judged else ())
    spec = _read_spec(given, path)
    _check_inputs(spec, problems)
    problems.raise_any()
    return spec


def _check_version(root: yaml.MappingNode, file: str, versions: tuple[int, ...]) -> None:
    # Alone and first: another version's keys are not ours to judge.
    read = " and ".join(map(str, versions))
    for key, value in root.value:
        if key.value == "forgetguard":
            if value.value not in map(str, versions):
                raise SpecificationError(
                    f"{file}:{line_of(value)}: forgetguard must be {versions[0]}, the version of "
                    f"the file's format, got {lines.shown(value)}: of such files this release "
                    f"reads version {read}"
                )
            return
    raise SpecificationError(
        f"{file}:{line_of(root)}: 'forgetguard' is missing: begin with forgetguard: {versions[0]}"
    )


def _read_spec(given: Fields, path: Path) -> GateSpec:
    capability = given.text("capability") or ""
    if "\n" in capability:
        given.wrong("capability", "capability must be one line of text")
    readout = given.choice("readout", tuple(READOUTS))
    members = _read_members(given, "circuit", "auto")
    return GateSpec(
        name=_read_name(given, path),
        capability=capability,
        pairs=_read_source(given, readout, path),
        readout=readout or next(iter(READOUTS)),
        members=tuple(members),
        limits=_read_limits(given) if "limits" in given else (),
        auto=_says(given, "circuit", "auto"),
        description=given.text("description") or "",
        fits=_read_fits(given) if "fits" in given else None,
        core=given.flag("core"),
        chat_template=_read_chat(given) if "chat_template" in given else False,
        site=given.choice("site", SITES) or SITES[0],
        confidence=_read_confidence(given),
        found=_read_found(given) if "found" in given else None,
        one_by_one=_read_one_by_one(given, members),
        new_task=_read_prompts(given, "new_task", path) if "new_task" in given else None,
        path=path,
        member_lines=tuple(members.values()),
        circuit_line=line_of(given["circuit"]) if "circuit" in given else 0,
    )


def _says(given: Fields, key: str, word: str) -> bool:
    """Whether a key holds one word instead of a list or a mapping."""
    return isinstance(given.get(key), yaml.ScalarNode) and given[key].value == word


def _check_inputs(spec: GateSpec, problems: Problems) -> None:
    """Add to `problems` the limits whose measures need what the file does not give."""
    for limit in spec.limits:
        missing = lacking(spec, limit.measure)
        if missing:
            problems.add(limit.line, f"limits.{limit.key} needs {missing}")
        _check_guard(spec, limit, problems)
        if limit.measure.needs_all and getattr(spec.pairs, "most", None) is not None:
            problems.add(
                limit.line,
                f"limits.{limit.key} is of all pairs together, which cannot be drawn stage by "
                "stage: leave out most:, or put it into a file of its own",
            )


def _check_guard(spec: GateSpec, limit: Limit, problems: Problems) -> None:
    """A guard that so few pairs could never pass."""
    pairs = spec.pairs
    given = getattr(pairs, "most", None) or getattr(pairs, "count", None)
    given = len(getattr(pairs, "pairs", ())) if given is None else given
    if limit.guard <= 0 or not given:
        return
    fewest = guard.fewest_pairs(limit.maximum, limit.guard, 1 - spec.confidence)
    if limit.maximum <= 0 or given < fewest:
        wanted = f"{fewest} pairs or more" if limit.maximum > 0 else "a max above 0"
        problems.add(
            limit.line,
            f"limits.{limit.key}: with guard: {limit.guard:g} and max: {limit.maximum:g} no model "
            f"could pass on {given} pairs: give {wanted}",
        )


def lacking(spec: GateSpec, measure: Measure) -> str:
    """What a measure needs that a gate file does not give, and how to give it; else nothing."""
    if measure.needs_circuit and not spec.has_circuit and not spec.circuit_line:
        return "a circuit: write circuit: [L2H1, ...], or auto, in a *.circuit.yaml file"
    if measure.needs_pairs and not spec.has_pairs:
        return "prompt pairs: give pairs: {task: ..., count: 64} and a readout:"
    if measure.sampled is Sampled.DOCUMENTS:
        return "" if isinstance(spec.pairs, EvalTasks) else (
            "tasks: write lm_eval: {tasks: [...]}, or {questions: FILE}, in a *.gate.yaml file"
        )  # fmt: skip
    if measure.needs_prompts and isinstance(spec.pairs, EvalTasks):
        return "prompts, and these are lm-eval's tasks: put it into a file of its own"
    if measure.needs_prompts and spec.pairs is None:
        return "prompts: give prompts: [...] or prompts: {file: PATH}"
    if measure.needs_new_task and spec.new_task is None:
        return "new_task: give prompts with completions of it, new_task: {file: PATH} or a list"
    if measure.needs_completions:
        for key, given in (("prompts", spec.pairs), ("new_task", spec.new_task)):
            texts = given.prompts if isinstance(given, Prompts) else ()
            bare = sum(not one.completion for one in texts)
            if bare:
                return (
                    f"a completion with every prompt: of {key} {bare} have none, write "
                    "{prompt: ..., completion: ...}"
                )
    return ""


def stem(path: Path) -> str:
    """A circuit file's name without its suffix: `ioi` for `ioi.circuit.yaml`."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def _read_name(given: Fields, path: Path) -> str:
    name = given.text("name") if "name" in given else stem(path)
    if name is not None and not _NAME.fullmatch(name):
        rule = "use letters, digits, '.', '_', '+' and '-', beginning with a letter or digit"
        if "name" in given:
            given.wrong("name", f"name {name!r} cannot name a test: {rule}")
        else:
            told = f"the file's name gives the circuit the name {name!r}: {rule}, or add name: ..."
            given.problems.add(1, told)
    return name or ""


def _read_confidence(given: Fields) -> float:
    low, high = CONFIDENCES
    value = given.number("confidence", "0.95")
    if value is not None and not low < value <= high:
        told = f"confidence must be above {low} and at most {high}, got {value:g} (write e.g. 0.95)"
        given.wrong("confidence", told)
    return DEFAULT_CONFIDENCE if value is None else value


def _read_found(given: Fields) -> Mapping[str, Any] | None:
    node = given["found"]
    if isinstance(node, yaml.MappingNode):
        value: dict[str, Any] | None = lines.plain_value(node, "found", given.problems)
        return value
    given.wrong("found", f"found must be a mapping, got {lines.shown(node)}")
    return None


def _read_fits(given: Fields) -> Fits:
    if _says(given, "fits", "any"):
        return Fits(any_base=True)
    node, fits = given["fits"], given.mapping("fits", _FITS)
    if isinstance(node, yaml.MappingNode) and not node.value:
        given.wrong("fits", f"fits: says nothing: give one or more of {', '.join(_FITS)}, or any")
    weights = fits.text("weights")
    if weights is not None and not _FINGERPRINT.fullmatch(weights):
        told = "a fingerprint of 64 hexadecimal digits, as forgetguard discover writes it"
        fits.wrong("weights", f"weights must be {told}, got {weights!r}")
    return Fits(
        alias=_read_aliases(fits) if "alias" in fits else None,
        architecture=fits.text("architecture"),
        layers=fits.whole("layers", 4, 1, MOST_PAIRS),
        heads=fits.whole("heads", 4, 1, MOST_PAIRS),
        weights=weights,
    )


def _read_aliases(fits: Fields) -> tuple[str, ...]:
    node = fits["alias"]
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    names = [lines.text(one, "fits: alias", fits.problems) for one in items]
    return tuple(name for name in names if name is not None)


def _read_members(given: Fields, key: str, other: str) -> dict[Member, int]:
    """The members that a key lists, each with its line; none where it says `other` instead."""
    if key not in given or _says(given, key, other):
        return {}
    node, problems = given[key], given.problems
    items = lines.sequence(node, key, f"[L2H1, L0H4], or {other}", problems)
    if isinstance(node, yaml.SequenceNode) and not items:
        given.wrong(key, f"{key} is empty: name its heads, e.g. [L2H1, L0H4], or {other}")
    found: dict[Member, int] = {}
    for item in items:
        name, line = lines.text(item, f"{key}: a head", problems), line_of(item)
        try:
            member = None if name is None else parse_member(name)
        except SpecificationError as error:
            problems.add(item, f"{key}: {error}")
            continue
        if member in found:
            twice = lines.both(found[member], line)
            problems.add(item, f"{key}: {member} is given twice, {twice}: keep one")
        elif member is not None:
            found[member] = line
    return found


def _read_one_by_one(
    given: Fields, members: Collection[Member]
) -> tuple[Member, ...] | Literal["all"] | None:
    if "one_by_one" not in given:
        return None
    names = tuple(_read_members(given, "one_by_one", "all"))
    for name in names:
        if name not in members:
            told = f"one_by_one: {name} is not in circuit: name it there too"
            given.wrong("one_by_one", told)
    return names or "all"


def _read_limits(given: Fields) -> tuple[Limit, ...]:
    declared, problems = given.mapping("limits"), given.problems
    if isinstance(given["limits"], yaml.MappingNode) and not given["limits"].value:
        told = "limits is empty, so nothing is gated: add e.g. dcv.circuit: {max: 0.10}"
        given.wrong("limits", told)
    limits = []
    for key, value in declared.items():
        try:
            measure = registry.find(key)
        except SpecificationError as error:
            declared.wrong(key, str(error))
            continue
        ratio = measure.estimator is Estimator.RATIO
        known = ("max", *["floor"] * measure.has_floor, *["guard"] * ratio)
        entry = lines.mapping(value, f"limits.{key}", problems, known=known, required=("max",))
        share = "it is a share of the circuit's importance"
        floor = _bounded(entry, "floor", DEFAULT_FLOOR, 1, share)
        times = "it is how many times the mean importance one imagined pair loses"
        imagined = _bounded(entry, "guard", 0.0, MOST_GUARD, times)
        maximum = entry.number("max", "0.10")
        if maximum is not None:
            wrong = check_maximum(key, maximum)
            if wrong is not None:
                entry.wrong("max", wrong)
            limits.append(Limit(key, maximum, line_of(value), floor, imagined))
    return tuple(limits)


def _bounded(entry: Fields, key: str, default: float, most: float, about: str) -> float:
    """The number of a key, from 0 to its most; its default where it is not there, or is wrong."""
    example = f"{default or 1:g}"
    value = entry.number(key, example)
    if value is None or 0 <= value <= most:
        return default if value is None else value
    wrong = f"must be between 0 and {most:g}, got {value:g}: {about} (write e.g. {key}: {example})"
    entry.wrong(key, f"{key} {wrong}")
    return default


def check_maximum(key: str, maximum: float) -> str | None:
    """What is wrong with a limit's maximum; None where nothing is.

    What a measure's unit allows. A negative maximum would demand an improvement, which is no
    question of forgetting. Where the unit is a share, from 1 on all of it may be lost: nothing is
    gated then, and in practice somebody thought of per cent.

    Raises:
        SpecificationError: there is no such measure.
    """
    unit = registry.find(key).unit
    if isinstance(maximum, bool) or not isinstance(maximum, (int, float)):
        return f"max must be a number such as 0.10, got {maximum!r}"
    if not math.isfinite(maximum):
        return f"max must be a finite number such as 0.10, got {maximum!r}"
    if maximum < 0:
        return (
            f"max must be 0 or more, got {maximum:g}: it is the loss allowed, write {-maximum:g} "
            f"to allow a loss of {-maximum:g}"
        )
    if unit.below is None or maximum < unit.below:
        return None
    return f"max must be below {unit.below:g} ({unit.name}), got {maximum:g}: {unit.hint}"


def _read_source(given: Fields, readout: str | None, path: Path) -> Source | None:
    problems = given.problems
    if "lm_eval" in given:
        for key in ("prompts", "pairs", "chat_template", "readout"):
            if key in given:
                where = "inside lm_eval" if key == "chat_template" else "into a file of its own"
                given.wrong(key, f"beside lm_eval: {key} has no use: put it {where}")
        return read_tasks(given["lm_eval"], path, problems)
    if "prompts" in given:
        if "pairs" in given:
            given.wrong("prompts", "give prompts or pairs, not both")
        return _read_prompts(given, "prompts", path)
    if "pairs" not in given:
        return None
    for key in ("capability", "readout"):
        if key not in given:
            given.wrong("pairs", f"{key!r} is missing: prompt pairs need it")
    return _read_pairs(given["pairs"], readout, path, problems)


def _read_prompts(given: Fields, key: str, path: Path) -> Prompts:
    node, problems = given[key], given.problems
    if isinstance(node, yaml.MappingNode):
        named = lines.mapping(node, key, problems, known=("file", "count"), required=("file",))
        count = named.whole("count", 64, FEWEST_PAIRS, MOST_PAIRS)
        read = partial(read_prompts, at_least=count or FEWEST_PAIRS)
        file, found = named.items_of_file("file", path, read)
        return Prompts(found, file or path.parent, count, line_of(node))
    lines.sequence(node, key, "['The capital of France is', ...]", problems)
    inline = _read_inline(node, key, PROMPTS, problems)
    check_prompts(inline, problems)
    return Prompts(tuple(inline), line=line_of(node))


def _read_inline(
    node: yaml.Node, label: str, kind: Kind[Item], problems: Problems
) -> tuple[Item, ...]:
    """The entries of a list; of prompts, each may be its text alone."""
    if not isinstance(node, yaml.SequenceNode):
        return ()
    if len(node.value) < FEWEST_PAIRS:
        told = f"{label}: holds {len(node.value)}, at least {FEWEST_PAIRS} are needed: add"
        problems.add(node, f"{told} {kind.what}")
    found = []
    for item in node.value:
        if kind.what == PROMPTS.what and not isinstance(item, yaml.MappingNode):
            text = lines.text(item, f"{label}: a prompt", problems)
            found.append(text and kind.make(text, line=line_of(item)))
            continue
        given = lines.mapping(item, label, problems, known=kind.keys, required=kind.required)
        texts = {
            key: lines.plain_value(value, given.label(key), problems, lines.TextLoader)
            for key, value in given.items()
        }
        found.append(read_entry(texts, line_of(item), kind, given.wrong))
    return tuple(one for one in found if one)


def _read_pairs(
    node: yaml.Node, readout: str | None, path: Path, problems: Problems
) -> TaskPairs | FilePairs | InlinePairs:
    if isinstance(node, yaml.SequenceNode):
        pairs = _read_inline(node, "pairs", PAIRS, problems)
        check_pairs(pairs, readout, problems)
        return InlinePairs(pairs, line_of(node))
    if not isinstance(node, yaml.MappingNode):
        told = (
            f"{{task: ..., count: 64}}, {{file: ...}} or a list of pairs, got {lines.shown(node)}"
        )
        problems.add(node, f"pairs must be {told}")
        return InlinePairs(())
    keys = {key.value for key, _ in node.value}
    if "task" in keys and "file" in keys:
        problems.add(node, "pairs: give task or file, not both")
    elif "task" in keys:
        return _read_task(node, problems)
    elif "file" in keys:
        return _read_file(node, readout, path, problems)
    else:
        lines.mapping(node, "pairs", problems, known=("task", "file", "count", "seed", "most"))
        problems.add(node, "pairs: 'task' or 'file' is missing: add one of them")
    return InlinePairs(())


def _read_task(node: yaml.MappingNode, problems: Problems) -> TaskPairs:
    from forgetguard.capabilities.tasks import find_task, task_names

    known = ("task", "count", "seed", "most")
    given = lines.mapping(node, "pairs", problems, known=known, required=known[:2])
    task = given.choice("task", task_names())
    if task is not None:
        try:
            find_task(task)
        except CapabilityError as error:
            given.wrong("task", str(error))
    count = given.whole("count", 64, FEWEST_JUDGED, MOST_PAIRS)
    seed = given.whole("seed", 0, 0) or 0
    return TaskPairs(task or "", count or 0, seed, line_of(node), _read_most(given, count))


def _read_most(given: Fields, count: int | None) -> int | None:
    """How many pairs may be drawn, where drawing is sequential."""
    most = given.whole("most", 256, FEWEST_PAIRS, MOST_PAIRS)
    if "most" in given and "count" not in given:
        told = "most needs count, the number of pairs to begin with: add e.g. count: 64"
        given.wrong("most", told)
    elif most is not None and count is not None and most <= count:
        told = f"give e.g. {4 * count}, or leave it out to measure count pairs"
        given.wrong("most", f"most must be above count ({count}), got {most}: {told}")
        return None
    return most


def _read_file(
    node: yaml.MappingNode, readout: str | None, path: Path, problems: Problems
) -> FilePairs:
    given = lines.mapping(node, "pairs", problems, known=("file", "count", "most"))
    count = given.whole("count", 64, FEWEST_PAIRS, MOST_PAIRS)
    most = _read_most(given, count)
    read = partial(read_prompt_file, readout=readout, at_least=most or count or FEWEST_PAIRS)
    file, pairs = given.items_of_file("file", path, read)
    return FilePairs(file or path.parent, count, pairs, line_of(node), most)


def _read_chat(given: Fields) -> ChatTemplate:
    """true or false, or arguments to the template; those that are given mean true."""
    key, node, problems = "chat_template", given["chat_template"], given.problems
    if not isinstance(node, yaml.MappingNode):
        return given.flag(key)
    if not node.value:
        given.wrong(key, f"{key} gives no arguments: write {key}: true")
    arguments = given.mapping(key)
    for name in _OUR_CHAT_ARGUMENTS & arguments.keys():
        arguments.wrong(name, f"{name} is the gate's own argument: leave it out")
    value: dict[str, Any] = lines.plain_value(node, key, problems) or {}
    for name, one in value.items():
        if not _is_plain(one):
            told = "text, a number, true, false, null, or lists and mappings of those"
            got = f"got {type(one).__name__} (put it in quotes)"
            at = arguments.get(str(name), node)
            problems.add(at, arguments.label(f"{name} must be {told}, {got}"))
    return value


def _is_plain(value: object) -> bool:
    """Whether a value reads the same from JSON, which is how certificates keep it."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int | float)


# --- writing ---------------------------------------------------------------------------------


def dump(spec: GateSpec, directory: str | Path | None = None) -> str:
    """YAML that loads back to an equal circuit.

    Args:
        spec: what to write.
        directory: where the file will lie, so that a prompt file is named relative to it; without
            it the prompt file's path is absolute.
    """

    def written(path: Path) -> str:
        named = path if directory is None else os.path.relpath(path, Path(directory).resolve())
        return str(named).replace(os.sep, "/")

    site, confidence = spec.site, spec.confidence
    document = {
        "forgetguard": VERSION if spec.has_circuit else VERSIONS[-1],
        "name": spec.name,
        "capability": spec.capability or None,
        "description": spec.description or None,
        "fits": _dump_fits(spec.fits),
        "core": spec.core or None,
        **_dump_source(spec.pairs, written),
        "new_task": spec.new_task and _dump_source(spec.new_task, written)["prompts"],
        "chat_template": spec.chat_template or None,
        "readout": spec.readout if spec.has_pairs else None,
        "circuit": "auto" if spec.auto else list(map(str, spec.members)) or None,
        "one_by_one": _dump_one_by_one(spec),
        "site": site if site != SITES[0] else None,
        "confidence": confidence if confidence != DEFAULT_CONFIDENCE else None,
        "limits": {
            limit.key: {"max": limit.maximum}
            | ({"floor": limit.floor} if limit.floor != DEFAULT_FLOOR else {})
            | ({"guard": limit.guard} if limit.guard else {})
            for limit in spec.limits
        },
        "found": None if spec.found is None else dict(spec.found),
    }
    return yaml.safe_dump(
        {key: value for key, value in document.items() if value is not None},
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100,
    )


def _dump_fits(fits: Fits | None) -> str | dict[str, Any] | None:
    if fits is None or fits.any_base:
        return None if fits is None else "any"
    told = {name: getattr(fits, name) for name in _FITS}
    told["alias"] = None if fits.alias is None else list(fits.alias)
    return {name: value for name, value in told.items() if value is not None}


def _dump_one_by_one(spec: GateSpec) -> str | list[str] | None:
    alone = spec.one_by_one
    return alone if alone is None or alone == "all" else list(map(str, alone))


def _dump_source(source: Source | None, written: Callable[[Path], str]) -> dict[str, Any]:
    """What it says where prompts come from, under its key."""
    if isinstance(source, EvalTasks):
        return {"lm_eval": dump_tasks(source, written)}
    if isinstance(source, InlinePairs):
        return {"pairs": [_dump_entry(one, PAIRS) for one in source.pairs]}
    if isinstance(source, Prompts) and source.path is None:
        entries = [_dump_entry(one, PROMPTS) for one in source.prompts]
        return {"prompts": [one if len(one) > 1 else one["prompt"] for one in entries]}
    found: dict[str, Any] = {}
    if isinstance(source, TaskPairs):
        found = {"task": source.task, "count": source.count, "seed": source.seed}
    elif source is not None and source.path is not None:
        found = {"file": written(source.path), "count": source.count}
    found["most"] = getattr(source, "most", None)
    key = "prompts" if isinstance(source, Prompts) else "pairs"
    told = {name: value for name, value in found.items() if value is not None}
    return {key: told} if told else {}


def _dump_entry(one: PromptPair | Prompt, kind: Kind[Any]) -> dict[str, Any]:
    values = {key: getattr(one, "clean" if key == "prompt" else key) for key in kind.keys}
    return {
        key: value
        if isinstance(value, str)
        else (dict if isinstance(value, Mapping) else list)(value)
        for key, value in values.items()
        if value
    }


def save(spec: GateSpec, path: str | Path) -> GateSpec:
    """Write a circuit file, whole or not at all, and return the circuit as it now reads.

    Raises:
        SpecificationError: the circuit does not make a valid file, or it cannot be written; then
            whatever was at `path` is untouched.
    """
    path = Path(path)
    try:
        text = dump(spec, path.parent)
    except yaml.YAMLError as error:
        raise SpecificationError(f"{path}: cannot be written as YAML: {error}") from None
    written = parse_gate(text, path)
    if written != replace(spec, path=path):
        raise SpecificationError(
            f"{path}: circuit {spec.name!r} would not read back as it is: keep `found` and the "
            "texts to plain values"
        )
    try:
        write_text(path, text)
    except OSError as error:
        raise SpecificationError(f"{path}: cannot be written: {error.strerror}") from None
    return written
