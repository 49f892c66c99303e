"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from forgetguard.errors import SpecificationError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` at the end, and only if nothing fails.

    Raises:
        OSError: it cannot be written; the old one, if any, is untouched.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(name).chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide it from CI's collector
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OSError: as `replacing`.
    """
    with replacing(path) as file:
        # A lone surrogate (an undecodable file name) becomes \\udcXX, which is JSON too.
        file.write(text.encode("utf-8", errors="backslashreplace"))


def write_result(path: Path, text: str) -> None:
    """`write_text`, of what a command was asked to write.

    Raises:
        SpecificationError: it cannot be written; the old file, if any, is untouched.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise SpecificationError(
            f"{path} was not written: {error.strerror or error}: make room, or name another path"
        ) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
