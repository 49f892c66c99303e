"""forgetguard: the regression test for what fine-tuning makes a language model forget.

The public names, imported when they are used: importing forgetguard imports neither torch nor
transformers. What is not named here is not promised.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetguard.anatomy.members import Head, Mlp
    from forgetguard.api import (
        Circuit,
        Measured,
        Origin,
        Restoration,
        Roles,
        Vulnerability,
        capability,
        discover,
        faithfulness,
        load,
        measure,
        origin,
        restoration,
        roles,
        vulnerability,
    )
    from forgetguard.capabilities.pairs import Prompt, PromptPair
    from forgetguard.errors import ForgetguardError

_HOMES = {
    "ForgetguardError": "forgetguard.errors",
    "Head": "forgetguard.anatomy.members",
    "Mlp": "forgetguard.anatomy.members",
    "Prompt": "forgetguard.capabilities.pairs",
    "PromptPair": "forgetguard.capabilities.pairs",
}  # of the others: forgetguard.api

__all__ = [
    "Circuit",
    "ForgetguardError",
    "Head",
    "Measured",
    "Mlp",
    "Origin",
    "Prompt",
    "PromptPair",
    "Restoration",
    "Roles",
    "Vulnerability",
    "capability",
    "discover",
    "faithfulness",
    "load",
    "measure",
    "origin",
    "restoration",
    "roles",
    "vulnerability",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'forgetguard' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "forgetguard.api")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
