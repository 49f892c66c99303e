"""Where, and in which number format, the random models of the parity tests run.

The CPU and float32, unless the environment says otherwise:

    FORGETGUARD_TEST_DEVICE=cuda FORGETGUARD_TEST_DTYPE=bfloat16 pytest tests/parity

`FORGETGUARD_TEST_DEVICE=emulated` finds tensors left on the CPU without a GPU (another_device.py).
Tests that need float64, or a format of their own, keep it. On a GPU float32 means float32: TF32 is
off, in the literal passes too.
"""

from __future__ import annotations

import os

import another_device
import torch

_ASKED = os.environ.get("FORGETGUARD_TEST_DEVICE", "cpu")
_EMULATED = _ASKED == "emulated"
DEVICE = another_device.DEVICE if _EMULATED else torch.device(_ASKED)
# Checkpoints cannot be read onto a device that is not there.
LOADED = "cpu" if _EMULATED else DEVICE.type
DTYPE: torch.dtype = getattr(torch, os.environ.get("FORGETGUARD_TEST_DTYPE", "float32"))

if _EMULATED:
    another_device.AnotherDevice().__enter__()  # for the whole process

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False

# Of the largest value compared: the engine adds float32 changes to a bfloat16 sum, a literal pass
# rounds every product. At most 5.1e-2 in bfloat16 on the CPU, over tests/parity.
_LOW_PRECISION = 8e-2


def tolerance(float32: float) -> float:
    """The tolerance of a comparison, relative to its largest value, in the format of this run."""
    exact = DTYPE in (torch.float32, torch.float64)
    return float32 if exact else max(float32, _LOW_PRECISION)
