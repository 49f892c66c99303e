"""Hashes of plain values and of files, and the checksum that a document carries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetguard.errors import SpecificationError

_ALGORITHM = "sha256"
_CHECKSUM_NOTE = (
    "a checksum of everything else in this file: it shows an edit by hand or a damaged copy, and "
    "proves nothing about who wrote the file"
)


def digest(value: Any) -> str:
    """sha256, in hexadecimal, of plain values as canonical JSON: whatever the order of keys, the
    spacing and the escapes of the file they came from."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def with_checksum(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with a checksum over all of it as its last entry. It is no signature: whoever
    edits the file can compute it anew."""
    content = {key: value for key, value in document.items() if key != "checksum"}
    return content | {
        "checksum": {"algorithm": _ALGORITHM, "value": digest(content), "note": _CHECKSUM_NOTE}
    }


def check_checksum(document: Mapping[str, Any], what: str) -> None:
    """Raises SpecificationError where the content of `what` does not match its checksum."""
    given = document.get("checksum")
    content = {key: value for key, value in document.items() if key != "checksum"}
    written = given.get("value") if isinstance(given, Mapping) else None
    if given is None or written is None:
        raise SpecificationError(f"{what} has no checksum: it is not whole, write it again")
    found = digest(content)
    if written != found:
        raise SpecificationError(
            f"{what} does not match its checksum (written {str(written)[:12]}..., its content "
            f"gives {found[:12]}...): it was changed after it was written; write it again"
        )


def digest_file(path: Path | None) -> str | None:
    """sha256 of a file's bytes; None where there is no file to read."""
    if path is None:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
