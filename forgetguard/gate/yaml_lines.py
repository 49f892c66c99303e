"""YAML whose every value knows its line; errors collected as `file:line: what`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from textwrap import indent
from typing import Any, TypeVar

import yaml

from forgetguard.errors import SpecificationError

_TAG = "tag:yaml.org,2002:"
# Written out rather than left to YAML 1.1, which reads 1e-1 as text, 010 as 8 and 1:30 as 90.
_INTEGER = re.compile(r"[-+]?(0|[1-9]\d*)")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")

Item = TypeVar("Item")

MOST_SHOWN = 20  # problems of one file


@dataclass(slots=True)
class Problems:
    """Everything that is wrong with some files, so that one run reports it all; of more than
    MOST_SHOWN in a file, the first and a count."""

    file: str
    # A dict, as a set that keeps the order.
    _found: dict[tuple[str, int, str], None] = field(default_factory=dict)

    def add(self, at: int | yaml.Node, message: str) -> None:
        """Note that `message` holds at a line (1-based) of the file, or that on which a node
        starts; a repeat is kept once."""
        self._found[self.file, at if isinstance(at, int) else line_of(at), message] = None

    def extend(self, other: Problems) -> None:
        """Take over what was found in another file, after what was found here."""
        self._found.update(other._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def __str__(self) -> str:
        by_file: dict[str, list[tuple[int, str]]] = {}
        for file, line, message in self._found:
            by_file.setdefault(file, []).append((line, message))
        shown = []
        for file, found in by_file.items():
            found.sort(key=itemgetter(0))
            shown += [f"{file}:{line}: {message}" for line, message in found[:MOST_SHOWN]]
            if len(found) > MOST_SHOWN:
                lines = len({line for line, _ in found})
                shown.append(
                    f"{file}: and {len(found) - MOST_SHOWN:,} more, {len(found):,} on {lines:,} "
                    "lines in all: mend the first ones, the others may be alike"
                )
        return "\n".join(shown)

    def raise_any(self) -> None:
        """Raise all of it, one problem a line, in the order of the lines.

        Raises:
            SpecificationError: something was found.
        """
        if self._found:
            raise SpecificationError(str(self))


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text of a file.

    Raises:
        SpecificationError: it is not there, not readable or not UTF-8 (with the line).
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise SpecificationError(f"{path}: no such {what}: check the path") from None
    except OSError as error:
        raise SpecificationError(f"{path}: the {what} cannot be read: {error.strerror}") from None
    return decode(raw, str(path))


def decode(raw: bytes, file: str) -> str:
    """UTF-8 bytes, with or without a byte order mark, as text.

    Raises:
        SpecificationError: they are not UTF-8; the message has the line of the first bad byte.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpecificationError(
            f"{file}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from None


def compose(text: str, file: str) -> yaml.Node | None:
    """The one YAML document of `text` as nodes with their marks; None when there is none.

    Raises:
        SpecificationError: it is not YAML, holds two documents, or nests too deeply.
    """
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        message = error.problem or error.context or "syntax error"
        hint = " (indent with spaces, not tabs)" if "\\t" in message else ""
        raise SpecificationError(f"{file}:{line}: not valid YAML: {message}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = text[: int(error.position)].count("\n") + 1
        raise SpecificationError(
            f"{file}:{line}: not valid YAML: character U+{int(error.character):04X} "
            "is not allowed: remove it"
        ) from None
    except RecursionError:
        raise SpecificationError(f"{file}:1: not valid YAML here: nested too deeply") from None


def line_of(node: yaml.Node) -> int:
    """The 1-based line on which a node starts."""
    return int(node.start_mark.line) + 1


def both(first: int, second: int) -> str:
    """Two lines, as a message names them."""
    return f"on line {first}" if first == second else f"on lines {first} and {second}"


def is_null(node: yaml.Node) -> bool:
    """Whether nothing (or `null`, or `~`) was written."""
    return bool(node.tag == _TAG + "null")


def shown(node: yaml.Node) -> str:
    """What was received, as an error quotes it."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "nothing" if is_null(node) else repr(node.value)


def nearest(name: str, known: Collection[str]) -> str:
    """The help for a name that is not known: the nearest one that is, else all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


class Fields(dict[str, yaml.Node]):
    """A mapping's values by key. What is wrong with one goes to `problems`, under the name of the
    mapping, `where`, and the value reads as if it were not there."""

    def __init__(self, where: str, problems: Problems) -> None:
        super().__init__()
        self.where, self.problems = where, problems

    def label(self, key: str) -> str:
        """A key, or what is said of it, as messages show it."""
        return f"{self.where}: {key}" if self.where else key

    def wrong(self, key: str, message: str) -> None:
        """Note what is wrong with the value of a key."""
        self.problems.add(self[key], self.label(message))

    def text(self, key: str) -> str | None:
        """A non-empty string; None where there is none."""
        return text(self[key], self.label(key), self.problems) if key in self else None

    def flag(self, key: str) -> bool:
        """true or false; False where there is none."""
        return key in self and bool(flag(self[key], self.label(key), self.problems))

    def choice(self, key: str, known: Collection[str]) -> str | None:
        """One of the names that are known; None where there is none."""
        value = self.text(key)
        if value is not None and value not in known:
            self.wrong(key, f"unknown {key} {value!r}: {nearest(value, known)}")
            return None
        return value

    def whole(self, key: str, example: int, least: int, most: int | None = None) -> int | None:
        """A whole number within its bounds; None where there is none."""
        if key not in self:
            return None
        value = integer(self[key], self.label(key), f"{key}: {example}", self.problems)
        if value is None or (value >= least and (most is None or value <= most)):
            return value
        bounds = f"{least} or more" if most is None else f"between {least} and {most}"
        self.wrong(key, f"{key} must be {bounds}, got {value}")
        return None

    def number(self, key: str, example: str) -> float | None:
        """A finite number; None where there is none."""
        if key not in self:
            return None
        return number(self[key], self.label(key), f"{key}: {example}", self.problems)

    def mapping(
        self, key: str, known: Collection[str] | None = None, required: Sequence[str] = ()
    ) -> Fields:
        """The mapping of a key that is there."""
        return mapping(self[key], self.label(key), self.problems, known=known, required=required)

    def items_of_file(
        self, key: str, beside: Path, read: Callable[[Path], Sequence[Item]]
    ) -> tuple[Path | None, tuple[Item, ...]]:
        """The file that a key names, relative to the file `beside`, and what `read` finds in it;
        what is wrong with it is told indented."""
        written = self.text(key)
        if written is None:
            return None, ()
        file = beside.parent / written
        try:
            return file.resolve(), tuple(read(file))
        except SpecificationError as error:
            self.wrong(key, f"{key}:\n{indent(str(error), '  ')}")
        return file.resolve(), ()


def mapping(
    node: yaml.Node,
    where: str,
    problems: Problems,
    *,
    known: Collection[str] | None = None,
    required: Sequence[str] = (),
) -> Fields:
    """A mapping's values by key. Keys that are unknown (when `known` is given), given twice, not
    text, or missing go to `problems`; a node that is no mapping does too, and reads as empty."""
    values = Fields(where, problems)
    if not isinstance(node, yaml.MappingNode):
        keys = ", ".join(known) if known else "key: value"
        told = f"must be a mapping (keys: {keys}), got {shown(node)}"
        problems.add(node, values.label(told))
        return values
    lines: dict[str, int] = {}
    for key_node, value in node.value:
        line, key = line_of(key_node), key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            problems.add(line, values.label(f"a key must be text, got {shown(key_node)}"))
        elif key in lines:
            twice = f"{key!r} is given twice, {both(lines[key], line)}: keep one"
            problems.add(line, values.label(twice))
        elif known is not None and key not in known:
            lines[key] = line
            problems.add(line, values.label(f"unknown key {key!r}: {nearest(key, known)}"))
        else:
            lines[key] = line
            values[key] = value
    for key in required:
        if key not in lines:
            problems.add(node, values.label(f"{key!r} is missing: add it"))
    return values


def sequence(node: yaml.Node, label: str, example: str, problems: Problems) -> list[yaml.Node]:
    """A list's items; anything else goes to `problems` and reads as an empty list."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    problems.add(node, f"{label} must be a list, got {shown(node)} (write e.g. {example})")
    return []


def text(node: yaml.Node, label: str, problems: Problems) -> str | None:
    """A non-empty string, or None and an entry in `problems`."""
    if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
        if node.value:
            return str(node.value)
        problems.add(node, f"{label} must not be empty")
    elif isinstance(node, yaml.ScalarNode) and not is_null(node):
        problems.add(
            node, f"{label} must be text, got {node.value} (put it in quotes: {node.value!r})"
        )
    else:
        problems.add(node, f"{label} must be text, got {shown(node)}")
    return None


def integer(node: yaml.Node, label: str, example: str, problems: Problems) -> int | None:
    """A whole number, or None and an entry in `problems`."""
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and _INTEGER.fullmatch(node.value):
        return int(node.value)
    problems.add(node, f"{label} must be a whole number, got {shown(node)} (write e.g. {example})")
    return None


def number(node: yaml.Node, label: str, example: str, problems: Problems) -> float | None:
    """A finite number, or None and an entry in `problems`."""
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    if plain and _NUMBER.fullmatch(node.value) and abs(float(node.value)) != float("inf"):
        return float(node.value)
    infinite = plain and node.tag == _TAG + "float"
    kind = "a finite number" if infinite else "a number"
    problems.add(node, f"{label} must be {kind}, got {shown(node)} (write e.g. {example})")
    return None


def flag(node: yaml.Node, label: str, problems: Problems) -> bool | None:
    """true or false, or None and an entry in `problems`."""
    if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "bool":
        return bool(node.value.lower() in ("true", "yes", "on"))
    problems.add(node, f"{label} must be true or false, got {shown(node)}")
    return None


@dataclass(frozen=True, slots=True)
class Unquoted:
    """A number, a date, true or false where only texts are asked for, as it is written."""

    written: str

    def __repr__(self) -> str:
        return f"{self.written} (put it in quotes: {self.written!r})"


class PlainLoader(yaml.SafeLoader):
    """Reads one value of a file, and tells the keys that it gives twice, at any depth."""

    def __init__(self, label: str, problems: Problems) -> None:
        super().__init__("")
        self.label, self.problems = label, problems

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping(node, self.label, self.problems)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


class TextLoader(PlainLoader):
    """Reads every scalar that is neither text nor null as `Unquoted`, keys as they are written."""

    yaml_constructors = PlainLoader.yaml_constructors | {
        _TAG + kind: lambda _, node: Unquoted(node.value)
        for kind in ("bool", "int", "float", "timestamp")
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        return {
            key.written if isinstance(key, Unquoted) else key: value for key, value in found.items()
        }


def plain_value(
    node: yaml.Node, label: str, problems: Problems, kind: type[PlainLoader] = PlainLoader
) -> Any:
    """Whatever is written there as plain Python values, kept as it is; keys given twice at any
    depth, and values that only code could build, go to `problems`."""
    loader = kind(label, problems)
    try:
        return loader.construct_object(node, deep=True)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else line_of(node)
        if "recursive" in str(error.problem):
            problems.add(line, f"{label} contains itself: remove the alias")
        else:
            problems.add(line, f"{label}: {error.problem}: write plain values only")
    except (ValueError, OverflowError, RecursionError) as error:
        problems.add(node, f"{label} cannot be read: {error}")
    finally:
        loader.dispose()
    return None
