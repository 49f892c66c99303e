"""The results file: verdicts as JSON, written whole or not at all, and read back."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from forgetguard.errors import SpecificationError
from forgetguard.gate.checksum import with_checksum
from forgetguard.whole_files import write_text

SCHEMA = "forgetguard.results"
SCHEMA_VERSION = 4
_HEAD = 100  # bytes of a file that begin with its schema
_RECORDED_VERSIONS = (
    "forgetguard",
    "torch",
    "transformers",
    "peft",
    "transformer-lens",
    "numpy",
    "scipy",
    "pytest",
)


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the installed distributions, `more` among them, that can change a
    number, found without importing them."""
    found = {"python": platform.python_version()}
    for name in (*_RECORDED_VERSIONS, *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def check_target(path: Path, what: str = "the results file") -> None:
    """Refuse a file that cannot be written, before anything is measured.

    Raises:
        SpecificationError: the folder is missing or not writable, or `path` is no regular file.
    """
    folder = path.parent
    if not folder.is_dir():
        raise SpecificationError(
            f"cannot write {what} {path}: there is no folder {folder}; create it first"
        )
    if path.exists() and not path.is_file():
        raise SpecificationError(
            f"cannot write {what} {path}: it is not a regular file; name another path"
        )
    try:  # root may write everywhere by os.access, on a read-only disk too
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SpecificationError(
            f"cannot write {what} {path}: {folder} is not writable ({error.strerror or error}); "
            "name another path"
        ) from error


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` with the schema's name and version in front and a checksum at the end,
    atomically: a reader sees the old file or the new one, never half of one.

    Raises:
        OSError: the file cannot be written; the old one, if any, is untouched.
    """
    write_text(path, text_of(complete(document)) + "\n")


def complete(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as the file holds it, with schema, version and checksum."""
    return with_checksum({"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **document})


def text_of(value: Any, indent: int = 0) -> str:
    """JSON, two spaces a level, with lists of plain values on one line each: measurements would
    otherwise fill a line with every number."""
    inner = " " * (indent + 2)
    if isinstance(value, Mapping) and value:
        entries = [
            f"{inner}{_scalar(str(key))}: {text_of(one, indent + 2)}" for key, one in value.items()
        ]
        return "{\n" + ",\n".join(entries) + "\n" + " " * indent + "}"
    if isinstance(value, (list, tuple)) and any(isinstance(one, (Mapping, list)) for one in value):
        entries = [f"{inner}{text_of(one, indent + 2)}" for one in value]
        return "[\n" + ",\n".join(entries) + "\n" + " " * indent + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read(path: Path) -> dict[str, Any]:
    """Read a results file.

    Raises:
        SpecificationError: it is not there, is not JSON, or has another schema or version.
    """
    return read_document(path, SCHEMA, SCHEMA_VERSION, "the results file")


def read_document(path: Path, schema: str, version: int, what: str) -> dict[str, Any]:
    """Read a JSON document of one schema and version; `what` names it in messages.

    Raises:
        SpecificationError: it is not there, is not JSON, or has another schema or version.
    """
    stranger = f"{path} is not {what} of forgetguard: give another file"
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
        )
    except OSError as error:
        raise SpecificationError(
            f"cannot read {what} {path}: {error.strerror or error}; check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        if b'"forgetguard.' not in path.read_bytes()[:_HEAD]:
            raise SpecificationError(stranger) from error
        raise SpecificationError(
            f"cannot read {what} {path}: {error}; was it cut short? Write it again"
        ) from error
    found = content if isinstance(content, dict) else {}
    theirs = found.get("schema"), found.get("schema_version")
    if not str(theirs[0]).startswith("forgetguard."):
        raise SpecificationError(stranger)
    if theirs != (schema, version):
        step = "give another file" if theirs[0] != schema else "write it again with this version"
        raise SpecificationError(
            f"{path} is {theirs[0]!r} version {theirs[1]!r}, not {schema!r} version {version}: "
            f"{step}"
        )
    return found


def _unique(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two entries with one name readers take one or the other: then a file says two things.
    found = dict(entries)
    if len(found) != len(entries):
        names = [name for name, _ in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{', '.join(twice)} given twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
