"""What libraries do to the process around them: kept quiet, and undone."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, no log lines below errors and no deprecations of libraries, inside.

    What their reports would say (missing keys and the like) is checked by the caller. The
    deprecations are what peft calls in transformers: nobody who loads a checkpoint can mend them.
    """
    from huggingface_hub import utils as hub_utils
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # has no annotations
    hub: Any = hub_utils  # does not declare these functions as exported
    verbosity = logging.get_verbosity()
    bars, hub_bars_off = logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # The hub warns where its environment variable has decided already.
        warnings.filterwarnings("ignore", message=".*progress bars.*")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
            if hub_bars_off:
                hub.disable_progress_bars()


@contextmanager
def own_randomness() -> Iterator[None]:
    """The caller's random states, of Python, numpy and torch, are put back afterwards."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)
