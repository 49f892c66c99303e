"""What an accepted checkpoint read on the same prompt pairs when it was recorded. [light]"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.members import Member

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
# The fields by what they hold; a test holds them complete.
NUMBERS = ("tuned_readout", "circuit_damage", "all_damage")


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Numbers of the recorded checkpoint, in nats; every array is [n], in the order of the pairs of
    the measurement that it is held against. What was not recorded is None or empty."""

    tuned_readout: FloatArray  # F(recorded, x)
    tuned_correct: BoolArray
    circuit_damage: FloatArray | None = None
    all_damage: FloatArray | None = None
    head_damage: Mapping[Member, FloatArray] = field(default_factory=dict)

    def mapped(self, take: Callable[[npt.ArrayLike, str], FloatArray]) -> Recorded:
        """Every array through `take(array, what it is)`: checked, or in another order."""

        def maybe(values: FloatArray | None, what: str) -> FloatArray | None:
            return None if values is None else take(values, f"the baseline's {what}")

        return Recorded(
            tuned_readout=take(self.tuned_readout, "the baseline's F(tuned, x)"),
            tuned_correct=take(self.tuned_correct, "the baseline's tuned correct") != 0,
            circuit_damage=maybe(self.circuit_damage, "damage of the circuit"),
            all_damage=maybe(self.all_damage, "damage of all heads"),
            head_damage={
                head: take(values, f"the baseline's damage of {head}")
                for head, values in self.head_damage.items()
            },
        )
