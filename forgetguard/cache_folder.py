"""Where what can be computed again is kept between runs. [light]"""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$FORGETGUARD_CACHE, or `forgetguard` in the user's cache folder."""
    own = os.environ.get("FORGETGUARD_CACHE")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "forgetguard"
