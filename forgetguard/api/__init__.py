"""forgetguard from Python: load, capability, discover, vulnerability, measure.

import forgetguard as fg

pair = fg.load(base="tiny:base", tuned="tiny:sft")              # nothing loaded yet
ioi = fg.capability("ioi", pairs=64, seed=0)
circuit = fg.discover(pair.base, ioi, method="activation_patching")
result = fg.vulnerability(pair, ioi, circuit)
result.circuit.value, result.circuit.interval, result.heads["L0H4"].value
fg.measure(pair, "kl.forward", prompts=["The capital of France is", ...])
circuit.save("ioi.circuit.yaml")                                # what pytest then gates on
"""

from __future__ import annotations

from forgetguard.api.capabilities import capability
from forgetguard.api.checkpoints import load
from forgetguard.api.circuits import SUGGESTED_LIMITS, Circuit, discover
from forgetguard.api.faithfulness import Roles, faithfulness, roles
from forgetguard.api.measure import Measured, measure
from forgetguard.api.origin import Origin, origin
from forgetguard.api.restoration import Restoration, restoration
from forgetguard.api.vulnerability import Vulnerability, vulnerability

__all__ = [
    "SUGGESTED_LIMITS",
    "Circuit",
    "Measured",
    "Origin",
    "Restoration",
    "Roles",
    "Vulnerability",
    "capability",
    "discover",
    "faithfulness",
    "load",
    "measure",
    "origin",
    "restoration",
    "roles",
    "vulnerability",
]
