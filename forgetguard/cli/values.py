"""Values of options that commands share: choices, whole numbers, settings in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from forgetguard.errors import SpecificationError
from forgetguard.report.json_file import check_target


def check_choice(option: str, value: str, known: Sequence[str]) -> None:
    """Raises SpecificationError where `value` is none of `known`."""
    if value not in known:
        raise SpecificationError(
            f"{option}: {value!r} is none of {', '.join(known)}; choose one of them"
        )


def read_settings(written: Sequence[str]) -> dict[str, Any]:
    """The settings of `--set KEY=VALUE`, values in YAML (raises SpecificationError)."""
    settings: dict[str, Any] = {}
    for one in written:
        key, equals, value = one.partition("=")
        if not equals or not key.isidentifier():
            raise SpecificationError(f"--set: {one!r} is no KEY=VALUE; write e.g. --set steps=10")
        if key in settings:
            raise SpecificationError(f"--set: {key} is given twice; give it once")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SpecificationError(
                f"--set: {one!r}: the value is not YAML; write a number, true, a name, or [1, 2]"
            ) from None
    return settings


def read_whole(option: str, text: str) -> int:
    """A whole number from 0 on (raises SpecificationError)."""
    if not (text.isascii() and text.isdigit()):
        raise SpecificationError(f"{option}: {text!r} is not a whole number from 0 on")
    return int(text)


def needs_module(module: str, what: str, extra: str) -> None:
    """Raises SpecificationError where an optional dependency is not installed."""
    if find_spec(module) is None:
        raise SpecificationError(f"{what} needs {module}: pip install 'forgetguard[{extra}]'")


def new_file(option: str, written: str | None, *, force: bool) -> Path | None:
    """Where an option wants a file written; None without it (raises SpecificationError where it
    cannot be written, or is there and `force` is not)."""
    if written is None:
        if force:
            raise SpecificationError(
                f"--force belongs to {option} FILE: there is nothing to replace"
            )
        return None
    path = Path(written)
    check_target(path, option)
    if path.exists() and not force:
        raise SpecificationError(f"{option}: {path} is there already; replace it with --force")
    return path
