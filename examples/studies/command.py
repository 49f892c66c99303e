"""What the commands of the studies share: errors told, progress with its time, the page written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from examples.studies.pages import write_page
from forgetguard.errors import ForgetguardError, SpecificationError

Say = Callable[[str], None]


def carry_out(run: Callable[[Say], None]) -> int:
    """Run, telling progress and errors on stderr; returns the exit status."""
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {line}\n")
        sys.stderr.flush()

    try:
        run(say)
    except ForgetguardError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def write_study(
    data: Mapping[str, Any], docs: Path, package: ModuleType, text: str, *, plots: bool
) -> Path:
    """Write what belongs to `data` below `docs`, by the name of the study's package: NAME.md, whose
    prose stays, if there is a page; as `text`, NAME/study.json; and the figures in NAME.

    Args:
        package: the study, whose `page` renders the numbers and whose `plots` draws them.

    Raises:
        SpecificationError: the page has no place for the numbers.
    """
    name = package.__name__.rpartition(".")[2]
    page: Any = import_module(f"{package.__name__}.page")
    at = docs / f"{name}.md"
    write_page(at, page, data, docs / name / "study.json", text)
    if plots:
        import_module(f"{package.__name__}.plots").draw(data, docs / name)
    return at


def compact(data: Mapping[str, Any]) -> str:
    """JSON without spaces."""
    return json.dumps(data, separators=(",", ":"))


def check_matplotlib(without: str = "--no-plots") -> None:
    """Raises SpecificationError where it is not installed: before anything is measured. `without`
    is the option that does without figures."""
    if find_spec("matplotlib") is None:
        raise SpecificationError(
            f"the figures need matplotlib: pip install matplotlib, or give {without}"
        )
