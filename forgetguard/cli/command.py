"""What a command of the command line is, and what its exit statuses mean."""

from __future__ import annotations

import signal
import sys
import threading
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forgetguard.errors import SpecificationError

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130
STATUSES = f"""\
exit status:
  {DONE:<5}done
  {FAILED:<5}it was asked rightly, but cannot be done: the message says why (the base cannot do the
       capability, no circuit is faithful enough, memory does not suffice, ...)
  {MISUSE:<5}it was not asked rightly: an option, a file or a checkpoint is wrong
  {INTERRUPTED:<5}interrupted (Ctrl-C)"""

# The modules of the same names are imported when they are chosen: help takes no time.
SUMMARIES = {
    "check": "judge tuned checkpoints against their base: the gate, in one command",
    "init": "write a starter folder of gates to edit, with a CI workflow",
    "inspect": "say what a checkpoint is, and what the gate can do with it",
    "discover": "find the heads that carry a capability, and write a circuit file to review",
    "calibrate": "measure what circuits read where nothing happened, and suggest limits",
    "verify": "confirm that a results file follows from its own numbers",
    "origin": "say which parts of the tuned checkpoint carry the loss of a capability",
    "report": "write results files as one page to read, without the models",
    "measures": "list everything that a limit may bound",
    "tasks": "list the tasks that prompt pairs can be drawn from",
    "train": "fine-tune a base by one recipe; goes on where it was stopped",
    "doctor": "say whether this machine can run the gate, problems first",
}

Job = Callable[[], int]  # returns the exit status


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    options: adds its options to its parser.
    prepare: checks everything that can be known before a model is loaded, and returns the work
        itself. What it raises is misuse. `KEY=VALUE` tokens are in `Namespace.tokens`. Heavy
        imports belong into the work, or at least after the options are known to be right.
    """

    name: str
    summary: str
    options: Callable[[ArgumentParser], None]
    prepare: Callable[[Namespace], Job]


def adder(parser: ArgumentParser | _ArgumentGroup) -> Callable[..., None]:
    """What adds options to a parser or one of its groups: their names, what they take ("": it is a
    switch), their help, and what argparse is told beside. Of `many` each one given is kept."""

    def add(names: str, takes: str, text: str, *, many: bool = False, **more: Any) -> None:
        more |= {"metavar": takes} if takes else {"action": "store_true"}
        more |= {"action": "append", "default": []} if many else {}
        parser.add_argument(*names.split(), help=text, **more)

    return add


def command(
    name: str, options: Callable[[ArgumentParser], None], prepare: Callable[[Namespace], Job]
) -> Command:
    """One of `SUMMARIES`."""
    return Command(name, SUMMARIES[name], options, prepare)


def listing(name: str, show: Job) -> Command:
    """A command that takes no arguments and shows something."""

    def prepare(asked: Namespace) -> Job:
        if asked.tokens:
            raise SpecificationError(f"takes no arguments, got {' '.join(asked.tokens)}")
        return show

    return command(name, lambda _: None, prepare)


def say(text: str) -> None:
    """A message for the person at the terminal; stdout is for results."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def whole_imports() -> Iterator[None]:
    """Ctrl-C waits until the block ends. In the middle of importing numpy it would leave a package
    half made, whose own errors then bury the KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
