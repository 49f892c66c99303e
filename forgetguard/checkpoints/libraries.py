"""Imports torch and transformers, which takes most of a short run's time, in less of it."""

from __future__ import annotations

import gc
import sys


def import_libraries() -> None:
    """Import what every run on models needs, once a process, without collecting garbage meanwhile:
    there is none, and looking for it takes a sixth of the time. What they made lives as long as
    the process, so later collections leave it out (`gc.freeze`), which come each time that a
    model leaves memory: a twentieth of a second instead of a sixth each."""
    if "torch" in sys.modules:  # whatever has been made since is not for ever
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
        import transformers.modeling_utils  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

        gc.freeze()
    finally:
        if enabled:
            gc.enable()
