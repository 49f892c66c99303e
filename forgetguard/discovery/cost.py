"""What patching every member exactly would take, from a rate measured on the model at hand.

The arithmetic is counted in token-layers: a patched run recomputes the layers from its member's on,
at the positions from the first that differs on. A plain forward pass of the clean prompts gives the
rate; on SmolLM2-135M it foretold 124 s for ioi (64 pairs, 270 heads), and 125 s were measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn

from forgetguard.anatomy.locate import Anatomy
from forgetguard.anatomy.members import Member
from forgetguard.capabilities.capability import EncodedCapability
from forgetguard.patching.forward import forward

# On one CPU thread, of SmolLM2: 3.4 ms a token in 208 tokens, 3.2 in 832, 4.3 in 104.
_ENOUGH_TOKENS = 256
_RATES: MutableMapping[nn.Module, float] = WeakKeyDictionary()


def exact_seconds(
    anatomy: Anatomy, capability: EncodedCapability, members: Sequence[Member]
) -> float:
    """Seconds that `activation_patching` of `members` would take on half of the pairs, by `clock`;
    one batch of them is run to tell."""
    return token_layers(anatomy, capability, members) / 2 / _rate(anatomy, capability)


def token_layers(anatomy: Anatomy, capability: EncodedCapability, members: Sequence[Member]) -> int:
    """Of patching each of `members` alone on all pairs, with the clean and counterfactual runs."""
    deep = sum(anatomy.n_layers - member.layer for member in members)
    total = 0
    for batch in capability.batches:
        rows, positions = batch.clean.shape
        total += rows * (deep * (positions - batch.start) + 2 * anatomy.n_layers * positions)
    return total


def clock(anatomy: Anatomy) -> Callable[[], float]:
    """Processor time where the processor does the work: other programs do not stretch it."""
    on_cpu = next(anatomy.model.parameters()).device.type == "cpu"
    return time.process_time if on_cpu else time.perf_counter


def _rate(anatomy: Anatomy, capability: EncodedCapability) -> float:
    """Token-layers a second, of the batch with the most tokens; on a CPU of some of its rows.
    Measured once of each model: prompts of other lengths differ by a third at most."""
    if anatomy.model not in _RATES:
        _RATES[anatomy.model] = _measured_rate(anatomy, capability)
    return _RATES[anatomy.model]


def _measured_rate(anatomy: Anatomy, capability: EncodedCapability) -> float:
    batch = max(capability.batches, key=lambda one: one.clean.numel())
    ids, now = batch.clean, clock(anatomy)
    if next(anatomy.model.parameters()).device.type == "cpu":
        ids = ids[: max(1, _ENOUGH_TOKENS // ids.shape[1])]
    with torch.no_grad():
        began = now()
        forward(anatomy, ids, batch.positions).cpu()  # waits for a GPU
        return ids.numel() * anatomy.n_layers / max(now() - began, 1e-6)
