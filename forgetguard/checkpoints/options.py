"""How checkpoints are loaded: number format, device, and what is trusted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from forgetguard.errors import SpecificationError

DTYPES = ("float32", "bfloat16", "float16")
_DEVICE = re.compile(r"cpu|cuda(:\d+)?|mps")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of every checkpoint of one run, checked when they are made.

    Attributes:
        dtype: `float32`, `bfloat16` or `float16`; all weights, adapters too, are loaded in it.
        device: `cpu`, `cuda`, `cuda:N` or `mps`; None means cuda where there is one, else cpu.
        device_map: `auto` spreads a model over all devices (needs accelerate); None does not.
        trust_remote_code: run Python code that a checkpoint brings along.
        allow_pickle: accept `.bin` weights (read by torch's weights-only unpickler).
        merge_adapter: add an adapter into the base's weights, instead of toggling it.

    Raises:
        SpecificationError: a value that is none of these.
    """

    dtype: str = "float32"
    device: str | None = None
    device_map: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    merge_adapter: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecificationError(
                f"dtype {self.dtype!r} is not known: choose one of {', '.join(DTYPES)}"
            )
        if self.device is not None and not (
            isinstance(self.device, str) and _DEVICE.fullmatch(self.device)
        ):
            raise SpecificationError(
                f"device {self.device!r} is not known: choose cpu, cuda, cuda:0 (or another "
                f"number) or mps"
            )
        if self.device_map not in (None, "auto"):
            raise SpecificationError(
                f"device_map {self.device_map!r} is not known: choose auto, or leave it out"
            )
        if self.device_map is not None and self.device is not None:
            raise SpecificationError(
                f"device_map=auto chooses the devices itself, but device={self.device} was given "
                f"too: leave one of them out"
            )
        for name in ("trust_remote_code", "allow_pickle", "merge_adapter"):
            if not isinstance(getattr(self, name), bool):
                raise SpecificationError(
                    f"{name} must be true or false, not {getattr(self, name)!r}"
                )
