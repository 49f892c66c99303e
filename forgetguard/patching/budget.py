"""How many rows fit: the default row budget, and halving it when memory runs out."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from forgetguard.anatomy.locate import Anatomy
from forgetguard.errors import MeasurementError

T = TypeVar("T")

# On a CPU matrix products gain little beyond this, and memory grows with it
# (benchmarks/wavefront.py --budgets).
CPU_TOKENS = 2048
_LARGEST_GPU_TOKENS = 131_072
_NO_ROOM = (
    "out of memory; use a smaller dtype (bfloat16), several devices (device map auto), shorter "
    "prompts or a device with more memory"
)


def default_budget(anatomy: Anatomy, n_positions: int, n_readout: int) -> int:
    """Tokens (rows times positions) that a wavefront may hold at once on the model's device.

    On a GPU half of the free memory, at the widest intermediate of a layer and float32 logits.
    """
    parameter = next(anatomy.model.parameters())
    if parameter.device.type != "cuda":
        return CPU_TOKENS
    config = anatomy.model.config.get_text_config()  # type: ignore[operator, union-attr]
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * width
    per_token = (12 * width + 3 * inner) * parameter.element_size()
    per_token += 12 * config.vocab_size * n_readout // n_positions
    free, _ = torch.cuda.mem_get_info(parameter.device)
    return int(max(n_positions, min(_LARGEST_GPU_TOKENS, free // 2 // per_token)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device or the machine ran out of memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def free_bytes(device: torch.device) -> int:
    """Memory that can be had on a device; where the machine does not say, as much as is asked."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return sys.maxsize if found is None else int(found[1]) << 10


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn running out of memory inside the block into a MeasurementError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MeasurementError(f"{what}: {_NO_ROOM}") from error


def halving(work: Callable[[int], T], rows: int) -> T:
    """`work(rows)`, retried with half the rows whenever memory runs out.

    Raises:
        MeasurementError: one row is too many.
    """
    while True:
        try:
            return work(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if rows == 1:
                raise MeasurementError(f"a single patched row is too much: {_NO_ROOM}") from error
            rows //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
