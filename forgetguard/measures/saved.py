"""Where finished parts of a computation are kept, and the names that they have there."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Saved(Protocol):
    """Where finished parts of a long computation are kept, so that it can be taken up again."""

    def load(self, key: str) -> npt.NDArray[np.float64] | None: ...

    def save(self, key: str, values: npt.NDArray[np.float64]) -> None: ...


def digest(content: object) -> str:
    """A name for all that `content` shows, in 32 hexadecimal digits."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]
