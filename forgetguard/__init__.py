"""forgetguard: the regression test for what fine-tuning makes a language model forget.

The public names, imported when they are used: importing forgetguard imports neither torch nor
transformers. What is not named here is not promised.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetguard.anatomy.members import Head, Mlp
    from forgetguard.api.capabilities import capability
    from forgetguard.api.checkpoints import load
    from forgetguard.api.circuits import Circuit, discover
    from forgetguard.api.heads import Restoration, Roles, faithfulness, restoration, roles
    from forgetguard.api.measure import Measured, Vulnerability, measure, vulnerability
    from forgetguard.api.origin import Origin, origin
    from forgetguard.capabilities.pairs import Prompt, PromptPair
    from forgetguard.errors import ForgetguardError

_HOMES = {
    "anatomy.members": ("Head", "Mlp"),
    "api.capabilities": ("capability",),
    "api.checkpoints": ("load",),
    "api.circuits": ("Circuit", "discover"),
    "api.heads": ("Restoration", "Roles", "faithfulness", "restoration", "roles"),
    "api.measure": ("Measured", "Vulnerability", "measure", "vulnerability"),
    "api.origin": ("Origin", "origin"),
    "capabilities.pairs": ("Prompt", "PromptPair"),
    "errors": ("ForgetguardError",),
}

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
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"forgetguard.{module}"), name)
    raise AttributeError(f"module 'forgetguard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
