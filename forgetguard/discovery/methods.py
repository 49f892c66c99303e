"""The discovery methods by name, with the settings that each of them takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from forgetguard.errors import SpecificationError

if TYPE_CHECKING:
    from forgetguard.discovery.ranking import Method

# Name -> where the function of that name lives.
METHODS: Mapping[str, str] = {
    "activation_patching": "forgetguard.discovery.activation_patching:activation_patching",
    "attribution_patching": "forgetguard.discovery.attribution_patching:attribution_patching",
    "integrated_gradients": "forgetguard.discovery.integrated_gradients:integrated_gradients",
    "binary_masking": "forgetguard.discovery.binary_masking:binary_masking",
    "desiderata_masking": "forgetguard.discovery.desiderata_masking:desiderata_masking",
    "random": "forgetguard.discovery.random_order:random_order",
}
SHORT: Mapping[str, str] = {
    "activation": "activation_patching",
    "attribution": "attribution_patching",
    "atp": "attribution_patching",
    "eap-ig": "integrated_gradients",
    "masking": "binary_masking",
    "dbm": "binary_masking",
    "dcm": "desiderata_masking",
}
_OF_EVERY_METHOD = {"anatomy", "capability", "members", "seed", "progress", "saved", "passes"}


def full_name(name: str) -> str:
    """The method's full name, for a full or a short one.

    Raises:
        SpecificationError: there is no such method.
    """
    full = SHORT.get(name, name)
    if full not in METHODS:
        raise SpecificationError(
            f"unknown method {name!r}; there are {', '.join(METHODS)} (short: {', '.join(SHORT)})"
        )
    return full


def method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of that name, with `settings` applied.

    Raises:
        SpecificationError: there is no such method, it has no such setting, or a setting is of
            another kind than its default.
    """
    module, _, function = METHODS[full_name(name)].partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    parameters = inspect.signature(found).parameters
    known = set(parameters) - _OF_EVERY_METHOD
    strange = sorted(set(settings or {}) - known)
    if strange:
        raise SpecificationError(
            f"method {full_name(name)} has no setting {', '.join(map(repr, strange))}; "
            + (f"it has {', '.join(sorted(known))}" if known else "it has none")
        )
    for setting, value in (settings or {}).items():
        _check_kind(f"method {full_name(name)}: {setting}", value, parameters[setting].default)
    return cast("Method", partial(found, **(settings or {})))


def _check_kind(what: str, value: object, default: object) -> None:
    """Refuse a setting that is no number where its default is one, and the like."""
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = _is_number(value, int), "a whole number"
    elif isinstance(default, float):
        fits, wanted = _is_number(value, int, float), "a number"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a name"
    elif isinstance(default, tuple):
        listed = (isinstance(value, (list, tuple)) and value) or [None]
        numbers = all(_is_number(one, int, float) for one in listed)
        # An empty default stands for objects that only Python can give.
        fits = len(listed) == len(default) and numbers if default else not _is_plain(listed[0])
        wanted = f"{len(default)} numbers" if default else "given from Python"
    else:
        return
    if not fits:
        shown = list(default) if isinstance(default, tuple) else default
        raise SpecificationError(f"{what} must be {wanted} (its default is {shown}), got {value!r}")


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, list, dict))
