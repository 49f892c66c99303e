"""`forgetguard tasks`: the tasks that prompt pairs can be drawn from, one line each."""

from __future__ import annotations

import inspect
import re
import sys

from forgetguard.capabilities.tasks import find_task, task_names
from forgetguard.cli.command import DONE, FAILED, listing
from forgetguard.errors import CapabilityError


def _list() -> int:
    names = task_names()
    width = max(map(len, names))
    status, lines = DONE, []
    for name in names:
        try:
            said = describe(name)
        except CapabilityError as error:
            status, said = FAILED, str(error)
        lines.append(f"{name:{width}}  {said}\n")
    sys.stdout.write("".join(lines))
    return status


def describe(name: str) -> str:
    """The first line of a task's documentation: its module's where that speaks of tasks, else its
    function's, else its module's (raises CapabilityError)."""
    task = find_task(name)
    module = inspect.getmodule(task)
    own = _first_line(task)
    about = "" if module is None else _first_line(module)
    chosen = about if about.startswith("Task `") else own or about
    return re.sub(rf"^Task `{re.escape(name)}`: ", "", chosen) or "(says nothing about itself)"


def _first_line(documented: object) -> str:
    lines = (inspect.getdoc(documented) or "").strip().splitlines()
    return lines[0] if lines else ""


COMMAND = listing("tasks", _list)
