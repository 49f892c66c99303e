"""A log gets a line for every stage and one every 15 seconds, after a few quiet ones."""

from __future__ import annotations

import threading
import time

import pytest

from pytest_forgetguard import progress
from pytest_forgetguard.progress import LogLines


class Log:
    """Lines with a clock that is set by hand."""

    def __init__(self, **settings: object) -> None:
        self.lines: list[str] = []
        self.now = 100.0
        self.tell = LogLines(self.lines.append, clock=lambda: self.now, **settings)  # type: ignore[arg-type]

    def at(self, second: float, what: str, done: int = 0, total: int = 1) -> None:
        self.now = 100.0 + second
        self.tell(what, done, total)


def test_stages_are_told_once_and_long_ones_every_15_seconds() -> None:
    log = Log()
    with log.tell.during():
        log.at(1, "opening tuned")
        log.at(5, "reading tuned", 0, 3)
        log.at(6, "reading tuned", 1, 3)
        for second in range(7, 60):
            log.at(second, "patching", second, 100)
    assert log.lines == [
        "forgetguard: 5 s: reading tuned 0/3",
        "forgetguard: 7 s: patching 7/100",
        "forgetguard: 22 s: patching 22/100",
        "forgetguard: 37 s: patching 37/100",
        "forgetguard: 52 s: patching 52/100",
    ]


def test_a_run_of_a_few_seconds_says_nothing() -> None:
    log = Log()
    with log.tell.during():
        for second in (0, 1, 2, 3):
            log.at(second, f"stage {second}")
    assert log.lines == []


def test_other_workers_tell_every_minute_who_they_are_and_no_stages() -> None:
    log = Log(every=60.0, stages=False, who="gw1: ")
    with log.tell.during():
        for second in range(0, 130, 10):
            log.at(second, f"stage {second}")
    assert log.lines == ["forgetguard: gw1: 60 s: stage 60", "forgetguard: gw1: 120 s: stage 120"]


def test_a_stage_that_calls_nobody_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOOK", 0.01)
    log = Log()
    with log.tell.during():
        log.at(0, "opening tuned")
        log.now += 10
        until = time.monotonic() + 10
        while not log.lines and time.monotonic() < until:
            time.sleep(0.01)
    assert log.lines == ["forgetguard: 10 s: opening tuned"]
    assert not [one for one in threading.enumerate() if one.name == "forgetguard-progress"]
