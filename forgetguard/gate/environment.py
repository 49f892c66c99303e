"""Where numbers were measured: the device, the number format, the threads."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetguard.checkpoints.options import LoadOptions

# Of two runs, what can make the same readout differ: worth a warning, and no more than that.
COMPARED = ("device", "device_name", "dtype", "machine")
COMPARED_VERSIONS = ("forgetguard", "torch", "transformers", "peft")


def environment(options: LoadOptions) -> dict[str, Any]:
    """What the models of `options` ran on, in plain values. Reads torch only where something else
    has loaded it: where nothing has, nothing was measured with it either."""
    found: dict[str, Any] = {
        "dtype": options.dtype,
        "platform": platform.system(),
        "machine": platform.machine(),
    }
    torch = sys.modules.get("torch")
    if torch is None:
        return found | {"device": options.device or "default"}
    if options.device_map is not None:
        device, name = f"map {options.device_map}", ""
    else:
        from forgetguard.checkpoints.loading import choose_device

        chosen = choose_device(options)
        device = str(chosen)
        name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else ""
    found |= {"device": device, "threads": int(torch.get_num_threads())}
    return found | ({"device_name": name} if name else {})


def differences(then: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """What differs between two environments, or between two sets of versions, in words:
    `torch 2.12.0, now 2.13.0`."""
    return [
        f"{key} {then.get(key, 'unknown')}, now {now.get(key, 'unknown')}"
        for key in keys
        if then.get(key) != now.get(key)
    ]
