"""One program at a time in a folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from forgetguard.errors import SpecificationError

_LOCK = ".lock"


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Nobody else works in `folder` inside the block; the system lets go of the lock whatever ends
    this process. Where there are no locks (Windows, some file systems) nothing is held.

    Args:
        what: how messages call the folder, and the work in it: `output DIR`, `run`.

    Raises:
        SpecificationError: the folder cannot be made or written to, or is in use.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
        if not os.access(folder, os.W_OK | os.X_OK):  # a lock of an earlier run may be writable
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SpecificationError(
            f"{what} cannot be made or written to ({error.strerror}): name another folder"
        ) from error
    with lock:
        if not _taken(lock):
            raise SpecificationError(
                f"{what} is in use by another run: wait for it, or name another folder"
            )
        yield


def _taken(lock: IO[str]) -> bool:
    """False where somebody else holds it."""
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # there are no locks here
        return True
    return True
