"""The shell command that runs one gate again with the options in force."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from pytest_forgetguard.arguments import FLAG
from pytest_forgetguard.options import SWITCHES, VALUES, field_of
from pytest_forgetguard.settings import Settings

_LEFT_OUT = ("json", "html", "family")  # see `rerun_command`


def rerun_command(settings: Settings, path: Path, names: str, start: Path, family: int = 1) -> str:
    """`pytest --forgetguard base=... tuned=... file::circuit::limit`, quoted for a POSIX shell, to
    be run in `start`. Results file and page are left out: one gate must not overwrite all.
    `family`: the limits that shared the run's false-alarm rate; alone it must decide as it did."""
    words = ["pytest", FLAG, f"base={settings.base}", f"tuned={settings.tuned}"]
    if settings.reference is not None:
        words.append(f"reference={settings.reference}")
    default = Settings("", "")
    for name in (*VALUES, *SWITCHES):
        value = getattr(settings, field_of(name))
        if name not in _LEFT_OUT and value != getattr(default, field_of(name)):
            words.append(f"{FLAG}-{name}" + f"={value}" * (name in VALUES))
    words += [f"{FLAG}-family={family}"] * (family > 1 or settings.family is not None)
    relative = os.path.relpath(path, start)
    words.append(f"{path if relative.startswith('..') else relative}{names}")
    return shlex.join(words)
