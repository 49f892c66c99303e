"""Progress on stderr: a bar on a terminal, elsewhere a line now and then for what takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_LONG = 5.0  # seconds before a log gets a first line
_SLOWER = 2.0  # a log's next line comes after so many times as long
_SHORT = 0.1


class _Lines:
    """What a log gets in a bar's place: whole lines, ever more seldom, so that hours of training
    are not thousands of them. A carriage return would make all of it one line of a log."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._started, self._next = time.monotonic(), _LONG
        self.n = 0

    def update(self, steps: int) -> None:
        self.n += steps
        passed = time.monotonic() - self._started
        if passed >= self._next:
            self._next = _SLOWER * passed
            sys.stderr.write(f"{self._what}: {self.n} of {self._total} in {passed:.0f} s\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Lines stay."""


class Bar:
    """Shows `(what, done, total)`, one bar for each `what`, gone when it is done."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what: tuple[str, int] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._what != (what, total) or done < self._bar.n:
            self.close()
            self._bar = _bar(what, total) if sys.stderr.isatty() else _Lines(what, total)
            self._what = (what, total)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Clear the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar, self._what = None, None


def _bar(what: str, total: int) -> Any:
    return tqdm(
        desc=what, total=total, file=sys.stderr, leave=False, mininterval=_SHORT, dynamic_ncols=True
    )


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar that is gone after the block, whatever ends it."""
    bar = Bar()
    try:
        yield bar
    finally:
        bar.close()
