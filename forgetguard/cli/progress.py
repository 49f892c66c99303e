"""A progress bar on stderr: at once on a terminal, elsewhere only for what takes long. [light]"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_LONG = 5.0  # seconds before a log gets a first line, and between two
_SHORT = 0.1


class Bar:
    """Shows `(what, done, total)`, one bar for each `what`, gone when it is done."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what: tuple[str, int] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._what != (what, total) or done < self._bar.n:
            self.close()
            terminal = sys.stderr.isatty()
            self._bar = tqdm(
                desc=what,
                total=total,
                file=sys.stderr,
                leave=False,
                delay=0 if terminal else _LONG,
                mininterval=_SHORT if terminal else _LONG,
                dynamic_ncols=terminal,
            )
            self._what = (what, total)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Clear the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar, self._what = None, None


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar that is gone after the block, whatever ends it."""
    bar = Bar()
    try:
        yield bar
    finally:
        bar.close()
