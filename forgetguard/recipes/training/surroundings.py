"""What training libraries do to the process around them, undone or kept quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from forgetguard.checkpoints.quiet import quiet


@contextmanager
def quiet_training() -> Iterator[None]:
    """No output, and no contact with the hub, of transformers, datasets and TRL inside; everything
    is as it was afterwards."""
    import logging

    import datasets
    from huggingface_hub import constants

    trl = logging.getLogger("trl")
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.callback(trl.setLevel, trl.level)
        trl.setLevel(logging.ERROR)
        # TRL counts its trainers' uses on the hub unless told otherwise.
        stack.callback(
            setattr, constants, "HF_HUB_DISABLE_TELEMETRY", constants.HF_HUB_DISABLE_TELEMETRY
        )
        constants.HF_HUB_DISABLE_TELEMETRY = True
        if datasets.are_progress_bars_disabled():
            yield
            return
        datasets.disable_progress_bars()
        stack.callback(datasets.enable_progress_bars)
        yield


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Inside, torch uses algorithms that give the same bits every time, where `on`."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
