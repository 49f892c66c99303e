"""What the libraries raise when the disk is full, said so that the user can go on."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forgetguard.errors import CheckpointError, first_line
from forgetguard.recipes.training import saved_states

# As torch's and safetensors' writers say it; 27 and 28 are a file too large and no space left.
_DISK = re.compile(
    r"no space left|disk quota|file too large|PytorchStreamWriter|inline_container|iostream error"
    r"|os error 2[78]",
    re.IGNORECASE,
)


@contextmanager
def explained(run: Path) -> Iterator[None]:
    """Turn what the libraries raise on a full disk into an error that says what is kept."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (
            errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
        )  # fmt: skip
        if not full and not _DISK.search(str(error)):
            raise
        state = saved_states.newest(run)
        kept = "no checkpoint was complete yet"
        if state is not None:
            kept = f"the checkpoint of step {state.step} is complete and kept"
        raise CheckpointError(
            f"output {run}: a file could not be written, as when the disk is full or a quota is "
            f"reached ({first_line(error)}); {kept}. Free some space and run the same again: it "
            f"goes on from there"
        ) from error
