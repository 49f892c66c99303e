"""The process that trains: which of several it is, its device, and what libraries do to it, undone
or kept quiet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from forgetguard.checkpoints.quiet import quiet
from forgetguard.errors import SpecificationError
from forgetguard.recipes.training.settings import TrainingSettings


def is_main() -> bool:
    """Whether this process is the first, or the only, one of the run, as its launcher says."""
    return int(os.environ.get("RANK", "0")) == 0


def count() -> int:
    """How many processes, and so devices, the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Until every process of a distributed run is here; nothing where there is one."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def device_of(settings: TrainingSettings) -> str:
    """Where this process trains: `cpu`, or its own CUDA device.

    Raises:
        SpecificationError: a GPU is asked for, and there is none.
    """
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SpecificationError("device cuda: there is no CUDA device here: use cpu, or drop it")
    if settings.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}"


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
        if not datasets.are_progress_bars_disabled():
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
