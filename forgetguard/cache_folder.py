"""Where what can be computed again is kept between runs. [light]"""

from __future__ import annotations

import os
from pathlib import Path

_OFF = "off"


def is_off() -> bool:
    """Whether nothing is to be kept between runs: FORGETGUARD_CACHE=off."""
    return os.environ.get("FORGETGUARD_CACHE") == _OFF


def cache_folder() -> Path:
    """$FORGETGUARD_CACHE, or `forgetguard` in the user's cache folder.

    Raises:
        RuntimeError: nothing is to be kept, or there is no home folder.
    """
    own = os.environ.get("FORGETGUARD_CACHE")
    if own == _OFF:
        raise RuntimeError("FORGETGUARD_CACHE=off: nothing is kept between runs")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "forgetguard"
