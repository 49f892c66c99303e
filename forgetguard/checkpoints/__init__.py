"""Base, tuned and reference: what they are, whether they belong together, and how they are loaded.

Importing this package imports neither torch nor transformers; `ModelPair`, `load_model` and the
like are fetched on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forgetguard.checkpoints.options import LoadOptions
from forgetguard.checkpoints.spec import CheckpointSpec, resolve

if TYPE_CHECKING:
    from forgetguard.checkpoints.fingerprint import Fingerprint
    from forgetguard.checkpoints.loading import load_model, load_tokenizer
    from forgetguard.checkpoints.placement import Checkpoint, ModelPair
    from forgetguard.checkpoints.preflight import check

__all__ = [
    "Checkpoint",
    "CheckpointSpec",
    "Fingerprint",
    "LoadOptions",
    "ModelPair",
    "check",
    "load_model",
    "load_tokenizer",
    "resolve",
]

# The function `fingerprint` is not among them: its module has the same name.
_LAZY = {
    "Checkpoint": "placement",
    "Fingerprint": "fingerprint",
    "ModelPair": "placement",
    "check": "preflight",
    "load_model": "loading",
    "load_tokenizer": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
