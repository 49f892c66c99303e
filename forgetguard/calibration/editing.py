"""Other maxima in a circuit file: only the numbers change, every other byte stays."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from forgetguard.errors import SpecificationError
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.schema import parse_gate
from forgetguard.gate.yaml_lines import compose, decode

_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Edit:
    """A circuit file before and after, as text with its line ends and its byte order mark."""

    path: Path
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def diff(self) -> str:
        """As `diff -u` shows it; empty where nothing changes."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            f"{self.path} (declared)",
            f"{self.path} (suggested)",
            n=2,
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def edit_limits(path: Path, limits: Mapping[str, float]) -> Edit:
    """The file with `max` of each of `limits` changed, checked by reading it back.

    Raises:
        SpecificationError: the file cannot be read, has no such limit, or says it in a way that
            cannot be changed in place (an alias, say).
    """
    try:
        before = path.read_bytes()
    except OSError as error:
        raise SpecificationError(f"{path}: cannot be read: {error.strerror}") from None
    text = decode(before, str(path))
    mark = _BOM if before.startswith(_BOM.encode()) else ""
    spec = parse_gate(text, path)
    wanted = {key: value for key, value in limits.items() if value != _maximum(spec, key, path)}
    after = _spliced(text, {key: _written(value) for key, value in wanted.items()}, path)
    _check(spec, after, limits, path)
    return Edit(path, mark + text, mark + after)


def _maximum(spec: GateSpec, key: str, path: Path) -> float:
    for limit in spec.limits:
        if limit.key == key:
            return limit.maximum
    raise SpecificationError(f"{path}: declares no limit {key}: it has "
                             f"{', '.join(limit.key for limit in spec.limits)}")  # fmt: skip


def _written(value: float) -> str:
    """Hundredths with two digits; anything finer as it is."""
    text = f"{value:.2f}"
    return text if float(text) == value else repr(value)


def _spliced(text: str, numbers: Mapping[str, str], path: Path) -> str:
    root = compose(text, str(path))
    places = []
    for key, number in numbers.items():
        node = _child(_child(_child(root, "limits"), key), "max")
        assert node is not None
        places.append((node.start_mark.index, node.end_mark.index, number))
    for start, end, number in sorted(places, reverse=True):
        text = text[:start] + number + text[end:]
    return text


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    assert isinstance(node, yaml.MappingNode)
    return next((value for name, value in node.value if name.value == key), None)


def _check(before: GateSpec, text: str, limits: Mapping[str, float], path: Path) -> None:
    """The new text must be the same circuit with other maxima, and nothing else."""
    expected = tuple(
        replace(one, maximum=limits.get(one.key, one.maximum)) for one in before.limits
    )
    try:
        fine = parse_gate(text, path) == replace(before, limits=expected)
    except SpecificationError:
        fine = False
    if not fine:
        raise SpecificationError(
            f"{path}: its limits cannot be changed in place (is a number an alias?): write them by "
            f"hand: {', '.join(f'{key} {value:g}' for key, value in limits.items())}"
        )
