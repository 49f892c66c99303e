"""The baseline file: recorded measurements as JSON, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetguard.errors import SpecificationError
from forgetguard.gate.baseline import SCHEMA, SCHEMA_VERSION, Baseline, Entry, entry_from_dict
from forgetguard.gate.checksum import check_checksum, with_checksum
from forgetguard.report import json_file
from forgetguard.whole_files import write_text

_WHAT = "the baseline"


def read_plain(path: Path) -> dict[str, Any]:
    """The entries of a baseline file, by circuit, in plain values.

    Raises:
        SpecificationError: it is not there, is no baseline, or was edited by hand.
    """
    if not path.is_file():
        raise SpecificationError(
            f"there is no baseline {path}: record one from an accepted checkpoint with "
            "--forgetguard-update, or check the path"
        )
    document = json_file.read_document(path, SCHEMA, SCHEMA_VERSION, _WHAT)
    check_checksum(document, f"{_WHAT} {path}")
    circuits = document.get("circuits")
    if not isinstance(circuits, dict):
        raise SpecificationError(f"{_WHAT} {path} holds no circuits: record it anew")
    return circuits


def read(
    path: Path,
    *,
    recording: bool = False,
    versions: Mapping[str, str] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Baseline:
    """A baseline file; where `recording`, one that is not there yet is empty.

    Raises:
        SpecificationError: as `read_plain`, or an entry is not whole.
    """
    plain = {} if recording and not path.exists() else read_plain(path)
    circuits: dict[str, Entry] = {
        name: entry_from_dict(name, entry, f"{_WHAT} {path}") for name, entry in plain.items()
    }
    return Baseline(path, circuits, recording, versions, environment)


def write(path: Path, circuits: Mapping[str, Any]) -> None:
    """Write entries in plain values, sorted by circuit, with a checksum, atomically.

    Raises:
        OSError: the file cannot be written; the old one, if any, is untouched.
    """
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "circuits": {name: circuits[name] for name in sorted(circuits)},
    }
    write_text(path, json_file.text_of(with_checksum(content)) + "\n")
