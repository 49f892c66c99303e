"""Values of options that commands share: choices, whole numbers, settings in YAML. [light]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from forgetguard.errors import SpecificationError


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
