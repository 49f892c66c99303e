"""One live line of progress while a gate measures: on a terminal only, and gone afterwards."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from pytest_forgetguard.keys import is_worker

if TYPE_CHECKING:
    from pytest_forgetguard.backend import Progress

_SECONDS_BETWEEN = 0.1
_SAVE, _RESTORE, _CLEAR = "\x1b7", "\x1b8", "\x1b[K"  # VT100: cursor, rest of the line


def live_line(config: pytest.Config) -> Progress | None:
    """A progress callback, or None where there is no terminal of this process's own."""
    if is_worker(config):
        return None
    return LiveLine(config)


class LiveLine:
    """Writes into what is left of pytest's current line and puts the cursor back."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._last = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show `what done/total`; at the end, clear it."""
        now = time.monotonic()
        if done < total and now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        manager = self._config.pluginmanager
        reporter: Any = manager.getplugin("terminalreporter")
        capture: Any = manager.getplugin("capturemanager")
        if reporter is None or not reporter.isatty:
            return
        # During a test stderr is captured; pytest's own live logging steps out the same way.
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            if not sys.stderr.isatty():
                return
            room = shutil.get_terminal_size().columns - reporter._width_of_current_line - 2
            text = f" {what} {done}/{total}"[: max(room, 0)] if done < total else ""
            sys.stderr.write(f"{_SAVE}{_CLEAR}{text}{_RESTORE}")
            sys.stderr.flush()
