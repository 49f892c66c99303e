"""What the commands of the studies share: errors told, progress with its time, the page written."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forgetguard.errors import ForgetguardError, SpecificationError
from forgetguard.recipes.pages import Page, write_page

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


def write_study(data: Mapping[str, Any], docs: Path, name: str, page: Page, text: str) -> Path:
    """Write NAME.md and, as `text`, NAME/study.json below `docs`; returns the page. Its prose
    stays, if there is a page.

    Raises:
        SpecificationError: the page has no place for the numbers.
    """
    at = docs / f"{name}.md"
    write_page(at, page, data, docs / name / "study.json", text)
    return at


def compact(data: Mapping[str, Any]) -> str:
    """JSON without spaces."""
    return json.dumps(data, separators=(",", ":"))


def check_matplotlib() -> None:
    """Raises SpecificationError where it is not installed: before anything is measured."""
    if find_spec("matplotlib") is None:
        raise SpecificationError(
            "the figures need matplotlib: pip install 'forgetguard[plots]', or give --no-plots"
        )
