"""How far a gate is: one live line on a terminal, and a line now and then in a log without one."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import pytest

from pytest_forgetguard.keys import is_worker

_SECONDS_BETWEEN = 0.1
_SAVE, _RESTORE, _CLEAR = "\x1b7", "\x1b8", "\x1b[K"  # VT100: cursor, rest of the line

_QUIET = 10.0  # seconds: a run that is over by then says nothing
_EVERY = 15.0  # seconds, within one stage
_LOOK = 1.0  # seconds
_FIRST_WORKER, _EVERY_OF_OTHERS = "gw0", 60.0  # workers go through the same stages


def progress_of(config: pytest.Config) -> Progress:
    """For a terminal, for a log, or for an xdist worker: that writes to stderr, which reaches the
    log of the whole run as it is."""
    if not is_worker(config):
        return TerminalProgress(config)
    worker: str = config.workerinput["workerid"]  # type: ignore[attr-defined]

    def write(line: str) -> None:
        with _uncaptured(config):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    if worker == _FIRST_WORKER:
        return LogLines(write)
    return LogLines(write, every=_EVERY_OF_OTHERS, stages=False, who=f"{worker}: ")


class TerminalProgress:
    """Tells it through pytest's terminal reporter, as its output allows."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lines = LogLines(self._write)
        self._last = 0.0  # when the live line was written
        self._left: Any = None  # the path on the line that was broken off
        config.pluginmanager.register(self, "forgetguard-progress")

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it."""
        reporter = _reporter(self._config)
        if reporter is not None:
            tell = self._live if reporter.isatty else self._lines
            tell(what, done, total)

    def _live(self, what: str, done: int, total: int) -> None:
        """Write into what is left of pytest's current line and put the cursor back; at the end,
        clear it."""
        now = time.monotonic()
        if done < total and now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        # During a test stderr is captured; pytest's own live logging steps out the same way.
        with _uncaptured(self._config):
            if not sys.stderr.isatty():
                return
            width = _reporter(self._config)._width_of_current_line
            room = shutil.get_terminal_size().columns - width - 2
            text = f" {_text(what, done, total)}"[: max(room, 0)] if done < total else ""
            sys.stderr.write(f"{_SAVE}{_CLEAR}{text}{_RESTORE}")
            sys.stderr.flush()

    def during(self) -> AbstractContextManager[None]:
        """Write lines even where a stage is silent, if this is no terminal."""
        reporter = _reporter(self._config)
        if reporter is None or reporter.isatty or reporter.verbosity < -1:
            return nullcontext()
        return self._lines.during()

    def _write(self, line: str) -> None:
        reporter = _reporter(self._config)
        with _uncaptured(self._config):
            if reporter._width_of_current_line:
                self._left = reporter.currentfspath if reporter.verbosity == 0 else None
                reporter.write("\n")
                reporter.currentfspath = None
            reporter.write(f"{line}\n", flush=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Begin the line anew that the letters of a file's tests stand on."""
        if self._left is not None:
            reporter, path, self._left = _reporter(self._config), self._left, None
            reporter.write(f"{os.path.relpath(path, reporter.startpath)} ")
            reporter.currentfspath = path


class LogLines:
    """Writes a line for each stage, and one every so many seconds within it; nothing in the first
    few seconds.

    Args:
        every: seconds.
        stages: whether the beginning of a stage is worth a line.
        who: stands in front.
        clock: seconds.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        every: float = _EVERY,
        stages: bool = True,
        who: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._every, self._stages = write, every, stages
        self._who, self._clock = who, clock
        self._lock = threading.Lock()
        self._begun: float | None = None
        self._last = 0.0
        self._now, self._told = "loading libraries", ""
        self._done, self._total = 0, 1

    def __call__(self, what: str, done: int, total: int) -> None:
        """Note it, and write a line where it is time for one."""
        with self._lock:
            self._now, self._done, self._total = what, done, total
        self.look()

    def look(self) -> None:
        """Write a line where it is time for one."""
        with self._lock:
            if self._begun is None:  # outside of `during`
                return
            now = self._clock()
            begins = self._stages and self._now != self._told and self._done < self._total
            seconds = now - self._begun
            if seconds < _QUIET or not (begins or now - self._last >= self._every):
                return
            self._last, self._told = now, self._now
            text = _text(self._now, self._done, self._total)
            self._write(f"forgetguard: {self._who}{seconds:.0f} s: {text}")

    @contextmanager
    def during(self) -> Iterator[None]:
        """Look every second, for loading a large model calls nobody. Only in here: pytest takes
        and gives back the output between tests, and two threads must not do so at once."""
        if self._begun is None:
            self._begun = self._last = self._clock()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_LOOK):
                self.look()

        watcher = threading.Thread(target=watch, name="forgetguard-progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


Progress: TypeAlias = TerminalProgress | LogLines  # how far a gate is, told while it measures


def _text(what: str, done: int, total: int) -> str:
    return f"{what} {done}/{total}" if total > 1 else what


def _reporter(config: pytest.Config) -> Any:
    return config.pluginmanager.getplugin("terminalreporter")


def _uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else nullcontext()
