"""Exceptions of other libraries, turned into ours where checkpoints are looked at. [light]"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from forgetguard.checkpoints.spec import CONFIG, CheckpointSpec
from forgetguard.errors import CheckpointError, ForgetguardError, first_line


@contextmanager
def foreign_errors(specs: Sequence[CheckpointSpec], done: str) -> Iterator[None]:
    """Inside, whatever is no error of ours becomes one, with the architecture and the next step.

    Raises:
        CheckpointError: from the other exception.
    """
    try:
        yield
    except ForgetguardError:
        raise
    except Exception as error:
        named = ", ".join(f"{spec} ({_architecture(spec)})" for spec in specs)
        raise CheckpointError(
            f"{named} cannot be {done} ({type(error).__name__}: {first_line(error)}). Check that "
            "transformers loads each of them; if it does, this is a fault of forgetguard: please "
            "report it"
        ) from error


def _architecture(spec: CheckpointSpec) -> str:
    """What config.json says, as far as it can be read."""
    if spec.kind != "directory":
        return spec.kind
    try:
        config = json.loads((spec.directory / CONFIG).read_text(encoding="utf-8"))
        return str((config.get("architectures") or [config.get("model_type")])[0])
    except (OSError, ValueError, AttributeError, LookupError, TypeError):
        return "of unknown architecture"
