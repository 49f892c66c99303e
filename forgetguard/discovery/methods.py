"""The discovery methods by name, with the settings that each of them takes. [light]"""

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
_OF_EVERY_METHOD = {"anatomy", "capability", "members", "seed", "progress", "saved"}


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
        SpecificationError: there is no such method, or it has no such setting.
    """
    module, _, function = METHODS[full_name(name)].partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    known = set(inspect.signature(found).parameters) - _OF_EVERY_METHOD
    strange = sorted(set(settings or {}) - known)
    if strange:
        raise SpecificationError(
            f"method {full_name(name)} has no setting {', '.join(map(repr, strange))}; "
            + (f"it has {', '.join(sorted(known))}" if known else "it has none")
        )
    return cast("Method", partial(found, **(settings or {})))
