"""What to say where paths were given and no gate is there: circuit files by another name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_forgetguard.arguments import FLAG
from pytest_forgetguard.keys import MARKER, SUFFIXES

_DECLARES = re.compile(r"^(forgetguard|capability)[ \t]*:", re.MULTILINE)
_CIRCUIT = re.compile(r"^circuit[ \t]*:", re.MULTILINE)
_NAMED = 3


def paths_given(config: pytest.Config) -> list[str]:
    """The paths and node ids of the command line (`addopts` counts as such); none where pytest took
    `testpaths` or the folder that it was started in."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return []
    return [str(argument) for argument in config.args]


def no_gate(config: pytest.Config, given: Iterable[str]) -> str:
    """Why a run whose paths hold no gate is refused, and the next step."""
    paths = located(config, given)
    return (
        f"no gate under {', '.join(given)}: no *{SUFFIXES[0]} file is selected there, and no "
        f"Python gate (a test with the fixture or marker {MARKER}); {advice(paths)}check the path, "
        f"or name circuits with {FLAG}-circuits PATH. Circuits that are bundled with forgetguard "
        "are run where no path is given"
    )


def located(config: pytest.Config, given: Iterable[str]) -> list[Path]:
    """Those of the arguments that are files or folders."""
    start = config.invocation_params.dir
    paths = (start / argument.partition("::")[0] for argument in given)
    return [path for path in paths if path.exists()]


def advice(paths: Iterable[Path]) -> str:
    """How to rename what looks like a circuit file, `; ` at the end; empty where nothing does."""
    found = dict.fromkeys(
        file
        for path in paths
        for file in (sorted(path.rglob("*.[yY]*[mM][lL]")) if path.is_dir() else [path])
        if is_near_miss(file)
    )
    named = [
        f"{file} looks like a gate file: call it {_right(file)}; " for file in list(found)[:_NAMED]
    ]
    more = len(found) - len(named)
    return "".join(named) + (f"{more} more files do; " if more else "")


def beside(config: pytest.Config, given: Iterable[str]) -> str:
    """What looks like a gate file in the folders that were named, and is not run; empty where
    nothing does."""
    folders = [path for path in located(config, given) if path.is_dir()]
    return advice(folders).removesuffix("; ")


def is_near_miss(file: Path) -> bool:
    """Whether the file declares a circuit, by its top-level keys, and is not named like one."""
    if file.suffix.lower() not in (".yaml", ".yml") or file.name.endswith(SUFFIXES):
        return False
    try:
        return _DECLARES.search(file.read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError):
        return False


def _right(file: Path) -> str:
    kind = "circuit" if _CIRCUIT.search(file.read_text(encoding="utf-8")) else "gate"
    stem = file.stem.removesuffix(".circuit").removesuffix(".gate")
    return f"{stem}.{kind}{file.suffix.lower()}"
