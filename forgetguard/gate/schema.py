"""`*.circuit.yaml` and `*.gate.yaml` files, read and written.

What they declare is in gate/declaration.py, what they ask of a base in gate/suitability.py. A gate
file is one without a circuit: it gives prompts instead of prompt pairs, or nothing to run a model
on, and may hold every measure that needs no more.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from forgetguard.anatomy.members import Member, parse_member
from forgetguard.capabilities.encoding import FEWEST_PAIRS as FEWEST_JUDGED
from forgetguard.capabilities.pairs import ChatTemplate, Prompt
from forgetguard.capabilities.readouts import READOUTS
from forgetguard.errors import CapabilityError, SpecificationError
from forgetguard.gate import guard
from forgetguard.gate import yaml_lines as lines
from forgetguard.gate.declaration import (
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
    CLASSES,
    FEWEST_PAIRS,
    FURTHER_KEYS,
    PAIR_KEYS,
    REQUIRED_PAIR_KEYS,
    check_pairs,
    check_prompts,
    make_pair,
    pair_texts,
    read_prompt_file,
    read_prompts,
)
from forgetguard.gate.yaml_lines import Problems, line_of, nearest
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
    nodes = lines.mapping(root, "", problems, known=known, required=required if judged else ())
    spec = _read_spec(nodes, path, problems)
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


def _read_spec(nodes: dict[str, yaml.Node], path: Path, problems: Problems) -> GateSpec:
    capability = _optional(nodes, "capability", lines.text, problems) or ""
    if "\n" in capability:
        problems.add(nodes["capability"], "capability must be one line of text")
    readout = _choice(nodes, "readout", tuple(READOUTS), problems)
    members, member_lines = _read_members(nodes.get("circuit"), problems)
    confidence, found, new = (nodes.get(key) for key in ("confidence", "found", "new_task"))
    return GateSpec(
        name=_read_name(nodes.get("name"), path, problems),
        capability=capability,
        pairs=_read_source(nodes, readout, path, problems),
        readout=readout or next(iter(READOUTS)),
        members=members,
        limits=_read_limits(nodes.get("limits"), problems),
        auto=_is_auto(nodes.get("circuit")),
        description=_optional(nodes, "description", lines.text, problems) or "",
        fits=_read_fits(nodes.get("fits"), problems),
        core=_optional(nodes, "core", lines.flag, problems) or False,
        chat_template=_optional(nodes, "chat_template", _read_chat, problems) or False,
        site=_choice(nodes, "site", SITES, problems) or SITES[0],
        confidence=0.95 if confidence is None else _read_confidence(confidence, problems),
        found=None if found is None else _read_found(found, problems),
        one_by_one=_read_one_by_one(nodes, members, problems),
        new_task=None if new is None else _read_prompts(new, path, problems, "new_task"),
        path=path,
        member_lines=member_lines,
        circuit_line=line_of(nodes["circuit"]) if "circuit" in nodes else 0,
    )


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


def _optional(nodes: dict[str, yaml.Node], key: str, read: Any, problems: Problems) -> Any:
    return read(nodes[key], key, problems) if key in nodes else None


def _choice(
    nodes: dict[str, yaml.Node], key: str, known: tuple[str, ...], problems: Problems
) -> str | None:
    value: str | None = _optional(nodes, key, lines.text, problems)
    if value is not None and value not in known:
        problems.add(nodes[key], f"unknown {key} {value!r}: {nearest(value, known)}")
    return value if value in known else None


def stem(path: Path) -> str:
    """A circuit file's name without its suffix: `ioi` for `ioi.circuit.yaml`."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def _read_name(node: yaml.Node | None, path: Path, problems: Problems) -> str:
    name = stem(path) if node is None else lines.text(node, "name", problems)
    if name is not None and not _NAME.fullmatch(name):
        rule = "use letters, digits, '.', '_', '+' and '-', beginning with a letter or digit"
        if node is None:
            problems.add(1, f"the file's name gives the circuit the name {name!r}: {rule}, "
                         "or add name: ...")  # fmt: skip
        else:
            problems.add(node, f"name {name!r} cannot name a test: {rule}")
    return name or ""


def _read_confidence(node: yaml.Node, problems: Problems) -> float:
    low, high = CONFIDENCES
    value = lines.number(node, "confidence", "confidence: 0.95", problems)
    if value is not None and not low < value <= high:
        problems.add(
            node,
            f"confidence must be above {low} and at most {high}, got {value:g} (write e.g. 0.95)",
        )
    return 0.95 if value is None else value


def _read_found(node: yaml.Node, problems: Problems) -> Mapping[str, Any] | None:
    if not isinstance(node, yaml.MappingNode):
        problems.add(node, f"found must be a mapping, got {lines.shown(node)}")
        return None
    value: dict[str, Any] | None = lines.plain_value(node, "found", problems)
    return value


def _read_fits(node: yaml.Node | None, problems: Problems) -> Fits | None:
    if node is None:
        return None
    if isinstance(node, yaml.ScalarNode) and node.value == "any":
        return Fits(any_base=True)
    nodes = lines.mapping(node, "fits", problems, known=_FITS)
    if isinstance(node, yaml.MappingNode) and not node.value:
        problems.add(node, f"fits: says nothing: give one or more of {', '.join(_FITS)}, or any")
    values: dict[str, Any] = {}
    for key, value in nodes.items():
        if key in ("layers", "heads"):
            values[key] = lines.whole(nodes, key, "fits", 4, (1, MOST_PAIRS), problems)
        elif key == "alias":
            values[key] = _read_aliases(value, problems)
        else:
            values[key] = lines.text(value, f"fits: {key}", problems)
    weights = values.get("weights")
    if weights is not None and not _FINGERPRINT.fullmatch(weights):
        problems.add(
            nodes["weights"],
            "fits: weights must be a fingerprint of 64 hexadecimal digits, as forgetguard discover "
            f"writes it, got {weights!r}",
        )
    return Fits(**values)


def _read_aliases(node: yaml.Node, problems: Problems) -> tuple[str, ...]:
    given = node.value if isinstance(node, yaml.SequenceNode) else [node]
    names = [lines.text(one, "fits: alias", problems) for one in given]
    return tuple(name for name in names if name is not None)


def _is_auto(node: yaml.Node | None) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "auto"


def _read_members(
    node: yaml.Node | None, problems: Problems, key: str = "circuit"
) -> tuple[tuple[Member, ...], tuple[int, ...]]:
    other = "auto" if key == "circuit" else "all"
    if node is None or (key == "circuit" and _is_auto(node)):
        return (), ()
    items = lines.sequence(node, key, f"[L2H1, L0H4], or {other}", problems)
    if isinstance(node, yaml.SequenceNode) and not items:
        problems.add(node, f"{key} is empty: name its heads, e.g. [L2H1, L0H4], or {other}")
    first: dict[Member, int] = {}
    found = []
    for item in items:
        name = lines.text(item, f"{key}: a head", problems)
        try:
            head = None if name is None else parse_member(name)
        except SpecificationError as error:
            problems.add(item, f"{key}: {error}")
            continue
        if head is None:
            continue
        if head in first:
            twice = lines.both(first[head], line_of(item))
            problems.add(item, f"{key}: {head} is given twice, {twice}: keep one")
            continue
        first[head] = line_of(item)
        found.append((head, line_of(item)))
    return tuple(head for head, _ in found), tuple(line for _, line in found)


def _read_limits(node: yaml.Node | None, problems: Problems) -> tuple[Limit, ...]:
    if node is None:
        return ()
    nodes = lines.mapping(node, "limits", problems)
    if isinstance(node, yaml.MappingNode) and not node.value:
        problems.add(
            node, "limits is empty, so nothing is gated: add e.g. dcv.circuit: {max: 0.10}"
        )
    limits = []
    for key, value in nodes.items():
        where = f"limits.{key}"
        try:
            measure = registry.find(key)
        except SpecificationError as error:
            problems.add(value, f"limits: {error}")
            continue
        ratio = measure.estimator is Estimator.RATIO
        known = ("max", *["floor"] * measure.has_floor, *["guard"] * ratio)
        entry = lines.mapping(value, where, problems, known=known, required=("max",))
        share = "it is a share of the circuit's importance"
        floor = _bounded(entry, "floor", where, (DEFAULT_FLOOR, 1), share, problems)
        times = "it is how many times the mean importance one imagined pair loses"
        imagined = _bounded(entry, "guard", where, (0.0, MOST_GUARD), times, problems)
        if "max" in entry:
            maximum = lines.number(entry["max"], f"{where}: max", "max: 0.10", problems)
            if maximum is not None:
                wrong = check_maximum(key, maximum)
                if wrong is not None:
                    problems.add(entry["max"], f"{where}: {wrong}")
                limits.append(Limit(key, maximum, line_of(value), floor, imagined))
    return tuple(limits)


def _read_one_by_one(
    nodes: dict[str, yaml.Node], members: tuple[Member, ...], problems: Problems
) -> tuple[Member, ...] | Literal["all"] | None:
    node = nodes.get("one_by_one")
    if node is None:
        return None
    if isinstance(node, yaml.ScalarNode) and node.value == "all":
        return "all"
    names, _ = _read_members(node, problems, "one_by_one")
    for name in names:
        if name not in members:
            problems.add(node, f"one_by_one: {name} is not in circuit: name it there too")
    return names or "all"


def _bounded(
    entry: dict[str, yaml.Node],
    key: str,
    where: str,
    default_and_most: tuple[float, float],
    about: str,
    problems: Problems,
) -> float:
    """The number of a key, from 0 to its most; its default where it is not there, or is wrong."""
    default, most = default_and_most
    if key not in entry:
        return default
    example = f"{key}: {default or 1:g}"
    value = lines.number(entry[key], f"{where}: {key}", example, problems)
    if value is None or 0 <= value <= most:
        return default if value is None else value
    wrong = f"must be between 0 and {most:g}, got {value:g}: {about} (write e.g. {example})"
    problems.add(entry[key], f"{where}: {key} {wrong}")
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


def _read_source(
    nodes: dict[str, yaml.Node], readout: str | None, path: Path, problems: Problems
) -> Source | None:
    prompts, pairs, tasks = (nodes.get(key) for key in ("prompts", "pairs", "lm_eval"))
    if tasks is not None:
        for key in ("prompts", "pairs", "chat_template", "readout"):
            if key in nodes:
                where = "inside lm_eval" if key == "chat_template" else "into a file of its own"
                problems.add(nodes[key], f"beside lm_eval: {key} has no use: put it {where}")
        return read_tasks(tasks, path, problems)
    if prompts is not None and pairs is not None:
        problems.add(prompts, "give prompts or pairs, not both")
    if prompts is not None:
        return _read_prompts(prompts, path, problems)
    if pairs is None:
        return None
    for key in ("capability", "readout"):
        if key not in nodes:
            problems.add(pairs, f"{key!r} is missing: prompt pairs need it")
    return _read_pairs(pairs, readout, path, problems)


def _read_prompts(
    node: yaml.Node, path: Path, problems: Problems, label: str = "prompts"
) -> Prompts:
    if isinstance(node, yaml.MappingNode):
        nodes = lines.mapping(node, label, problems, known=("file", "count"), required=("file",))
        count = lines.whole(nodes, "count", label, 64, (FEWEST_PAIRS, MOST_PAIRS), problems)
        read = partial(read_prompts, at_least=count or FEWEST_PAIRS)
        file, found = lines.items_of_file(nodes, "file", label, path, read, problems)
        return Prompts(found, file or path.parent, count, line_of(node))
    inline = []
    for item in lines.sequence(node, label, "['The capital of France is', ...]", problems):
        if isinstance(item, yaml.MappingNode):
            known = ("prompt", "completion", "template")
            entry = lines.mapping(item, label, problems, known=known, required=known[:1])
            texts = {key: lines.text(value, f"{label}: {key}", problems) or ""
                     for key, value in entry.items()}  # fmt: skip
            prompt = Prompt(
                texts.get("prompt", ""),
                texts.get("completion", ""),
                texts.get("template", ""),
                line_of(item),
            )
        else:
            prompt = Prompt(
                lines.text(item, f"{label}: a prompt", problems) or "", line=line_of(item)
            )
        if prompt.clean:
            inline.append(prompt)
    check_prompts(inline, problems)
    if isinstance(node, yaml.SequenceNode) and len(node.value) < FEWEST_PAIRS:
        problems.add(
            node,
            f"{label}: holds {len(node.value)}, at least {FEWEST_PAIRS} are needed: add prompts",
        )
    return Prompts(tuple(inline), line=line_of(node))


def _read_pairs(
    node: yaml.Node | None, readout: str | None, path: Path, problems: Problems
) -> TaskPairs | FilePairs | InlinePairs:
    if isinstance(node, yaml.SequenceNode):
        return _read_inline(node, readout, problems)
    if not isinstance(node, yaml.MappingNode):
        if node is not None:
            problems.add(
                node, f"pairs must be {{task: ..., count: 64}}, {{file: ...}} or a list "
                f"of pairs, got {lines.shown(node)}"
            )  # fmt: skip
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
    nodes = lines.mapping(node, "pairs", problems, known=known, required=known[:2])
    task = lines.text(nodes["task"], "pairs: task", problems)
    if task is not None and task not in task_names():
        problems.add(nodes["task"], f"pairs: unknown task {task!r}: {nearest(task, task_names())}")
    elif task is not None:
        try:
            find_task(task)
        except CapabilityError as error:
            problems.add(nodes["task"], f"pairs: {error}")
    count = lines.whole(nodes, "count", "pairs", 64, (FEWEST_JUDGED, MOST_PAIRS), problems)
    seed = None
    if "seed" in nodes:
        seed = lines.integer(nodes["seed"], "pairs: seed", "seed: 0", problems)
        if seed is not None and seed < 0:
            problems.add(nodes["seed"], f"pairs: seed must be 0 or more, got {seed}")
    most = _read_most(nodes, count, problems)
    return TaskPairs(task or "", count or 0, seed or 0, line_of(node), most)


def _read_most(nodes: dict[str, yaml.Node], count: int | None, problems: Problems) -> int | None:
    """How many pairs may be drawn, where drawing is sequential."""
    if "most" not in nodes:
        return None
    most = lines.whole(nodes, "most", "pairs", 256, (FEWEST_PAIRS, MOST_PAIRS), problems)
    if "count" not in nodes:
        problems.add(
            nodes["most"],
            "pairs: most needs count, the number of pairs to begin with: add e.g. count: 64",
        )
    elif most is not None and count is not None and most <= count:
        problems.add(
            nodes["most"],
            f"pairs: most must be above count ({count}), got {most}: give e.g. {4 * count}, or "
            "leave it out to measure count pairs",
        )
        return None
    return most


def _read_file(
    node: yaml.MappingNode, readout: str | None, path: Path, problems: Problems
) -> FilePairs:
    nodes = lines.mapping(node, "pairs", problems, known=("file", "count", "most"))
    count = lines.whole(nodes, "count", "pairs", 64, (FEWEST_PAIRS, MOST_PAIRS), problems)
    most = _read_most(nodes, count, problems)
    read = partial(read_prompt_file, readout=readout, at_least=most or count or FEWEST_PAIRS)
    file, pairs = lines.items_of_file(nodes, "file", "pairs", path, read, problems)
    return FilePairs(file or path.parent, count, pairs, line_of(node), most)


def _read_inline(node: yaml.SequenceNode, readout: str | None, problems: Problems) -> InlinePairs:
    pairs = []
    for item in node.value:
        nodes = lines.mapping(item, "pairs", problems, known=PAIR_KEYS, required=REQUIRED_PAIR_KEYS)
        texts = {
            key: _read_key(key, value, problems)
            for key, value in nodes.items()
            if key in REQUIRED_PAIR_KEYS or not lines.is_null(value)
        }
        pair = make_pair(texts, line_of(item))
        if pair is not None:
            pairs.append(pair)
    check_pairs(pairs, readout, problems)
    if len(node.value) < FEWEST_PAIRS:
        problems.add(
            node,
            f"pairs: holds {len(node.value)}, at least {FEWEST_PAIRS} are needed: add prompt pairs",
        )
    return InlinePairs(tuple(pairs), line_of(node))


def _read_key(key: str, node: yaml.Node, problems: Problems) -> Any:
    label = f"pairs: {key}"
    if key in FURTHER_KEYS:
        return _read_texts(node, label, problems)
    if key != CLASSES:
        return lines.text(node, label, problems)
    given = lines.mapping(node, label, problems)
    if "" in given:
        problems.add(given.pop(""), f"{label}: a class must have a name, got ''")
    texts = {name: lines.text(one, f"{label}: {name}", problems) for name, one in given.items()}
    return {name: text for name, text in texts.items() if text is not None}


def _read_texts(node: yaml.Node, label: str, problems: Problems) -> list[str]:
    items = lines.sequence(node, label, "[' four', ' five']", problems)
    texts = [lines.text(item, f"{label}: each", problems) for item in items]
    return [text for text in texts if text is not None]


def _read_chat(node: yaml.Node, label: str, problems: Problems) -> ChatTemplate:
    """true or false, or arguments to the template; those that are given mean true."""
    if not isinstance(node, yaml.MappingNode):
        return lines.flag(node, label, problems) or False
    if not node.value:
        problems.add(node, f"{label} gives no arguments: write {label}: true")
    nodes = lines.mapping(node, label, problems)
    for key in _OUR_CHAT_ARGUMENTS & nodes.keys():
        problems.add(nodes[key], f"{label}: {key} is the gate's own argument: leave it out")
    value: dict[str, Any] = lines.plain_value(node, label, problems) or {}
    for key in (key for key, one in value.items() if not _is_plain(one)):
        problems.add(
            nodes[key],
            f"{label}: {key} must be text, a number, true, false, null, or lists and mappings of "
            f"those, got {type(value[key]).__name__} (put it in quotes)",
        )
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
    document: dict[str, Any] = {
        "forgetguard": VERSION if spec.has_circuit else VERSIONS[-1],
        "name": spec.name,
    }
    if spec.capability:
        document["capability"] = spec.capability
    if spec.description:
        document["description"] = spec.description
    if spec.fits is not None:
        given = {name: getattr(spec.fits, name) for name in _FITS}
        if spec.fits.alias is not None:
            given["alias"] = list(spec.fits.alias)
        told = {name: value for name, value in given.items() if value is not None}
        document["fits"] = "any" if spec.fits.any_base else told
    if spec.core:
        document["core"] = True
    if isinstance(spec.pairs, EvalTasks):
        document["lm_eval"] = dump_tasks(spec.pairs, directory)
    elif isinstance(spec.pairs, Prompts):
        document["prompts"] = _dump_prompts(spec.pairs, directory)
    elif spec.pairs is not None:
        document["pairs"] = _dump_pairs(spec.pairs, directory)
    if spec.new_task is not None:
        document["new_task"] = _dump_prompts(spec.new_task, directory)
    if spec.chat_template:
        document["chat_template"] = spec.chat_template
    if spec.has_pairs:
        document["readout"] = spec.readout
    if spec.has_circuit:
        document["circuit"] = "auto" if spec.auto else [str(one) for one in spec.members]
    if spec.one_by_one is not None:
        alone = spec.one_by_one
        document["one_by_one"] = alone if alone == "all" else [str(one) for one in alone]
    if spec.site != SITES[0]:
        document["site"] = spec.site
    if spec.confidence != GateSpec.__dataclass_fields__["confidence"].default:
        document["confidence"] = spec.confidence
    document["limits"] = {
        limit.key: {"max": limit.maximum}
        | ({"floor": limit.floor} if limit.floor != DEFAULT_FLOOR else {})
        | ({"guard": limit.guard} if limit.guard else {})
        for limit in spec.limits
    }
    if spec.found is not None:
        document["found"] = dict(spec.found)
    return yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


def _dump_pairs(pairs: TaskPairs | FilePairs | InlinePairs, directory: str | Path | None) -> Any:
    most = {} if isinstance(pairs, InlinePairs) or pairs.most is None else {"most": pairs.most}
    if isinstance(pairs, TaskPairs):
        return {"task": pairs.task, "count": pairs.count, "seed": pairs.seed} | most
    if isinstance(pairs, FilePairs):
        written = _dump_file(pairs.path, directory)
        return written if pairs.count is None else written | {"count": pairs.count} | most
    entries = []
    for pair in pairs.pairs:
        entry: dict[str, Any] = dict(zip(REQUIRED_PAIR_KEYS, pair_texts(pair)[:3], strict=True))
        if pair.distractor is not None:
            entry["distractor"] = pair.distractor
        further = {key: list(getattr(pair, key)) for key in FURTHER_KEYS}
        entry |= {key: texts for key, texts in further.items() if texts}
        entry |= {"template": pair.template} if pair.template else {}
        entries.append(entry | ({CLASSES: dict(pair.classes)} if pair.classes else {}))
    return entries


def _dump_file(path: Path, directory: str | Path | None) -> dict[str, Any]:
    file = str(path) if directory is None else os.path.relpath(path, Path(directory).resolve())
    return {"file": file.replace(os.sep, "/")}


def _dump_prompts(prompts: Prompts, directory: str | Path | None) -> Any:
    if prompts.path is not None:
        written = _dump_file(prompts.path, directory)
        return written if prompts.count is None else written | {"count": prompts.count}
    entries: list[Any] = []
    for one in prompts.prompts:
        more = {"completion": one.completion, "template": one.template}
        given = {key: text for key, text in more.items() if text}
        entries.append({"prompt": one.clean, **given} if given else one.clean)
    return entries


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
