"""From per-pair numbers to a verdict on one declared limit. [light]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.heads import Head
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.gate.schema import CircuitSpec, Limit
from forgetguard.gate.verdict import Verdict

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What was measured for one circuit on n prompt pairs; every array is [n], in nats, in the
    order of `pairs`. What the limits asked for do not need may stay None or empty.
    """

    pairs: tuple[PromptPair, ...]
    base_readout: FloatArray  # F(base, x)
    tuned_readout: FloatArray  # F(tuned, x)
    base_correct: BoolArray
    tuned_correct: BoolArray
    circuit_importance: FloatArray | None = None  # F(base, x) - F(base, x, circuit from x')
    circuit_damage: FloatArray | None = None  # F(base, x) - F(base, x, circuit from (tuned, x))
    head_importance: Mapping[Head, FloatArray] = field(default_factory=dict)
    head_damage: Mapping[Head, FloatArray] = field(default_factory=dict)
    reference_circuit_damage: FloatArray | None = None  # with the reference for tuned
    reference_head_damage: Mapping[Head, FloatArray] = field(default_factory=dict)
    dropped: int = 0  # pairs that did not align, already left out of the arrays
    notes: tuple[str, ...] = ()


def judge(
    spec: CircuitSpec, limit: Limit, measurement: Measurement, *, seed: int = 0, worst: int = 5
) -> Verdict:
    """Decide one limit."""
    raise NotImplementedError
