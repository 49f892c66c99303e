"""Whether another model computes the base's function on a gate file's pairs: function before parts.

Heads may be put into another order, the residual stream permuted, rotated or scaled, norms folded
into the matrices behind them: the function stays, and a head or a direction of one name is no
longer the base's. What is patched by name then reads damage where nothing is lost. So where the
readouts are equal, on the clean and the counterfactual prompt of every pair, parts were renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetguard.measures.samples import (
    BASE,
    COUNTERFACTUAL,
    DAMAGE,
    READOUT,
    FloatArray,
    Samples,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# The largest difference of two readouts that are taken for equal, as a share of the mean effect
# |F(x) - F(x')| of the base. Measured on SmolLM2 in float32, on ioi and induction, effects of 10
# and 6 nats: heads reordered, norms folded, the residual stream permuted or rotated: 6e-6; scaled
# by 2 with the norms' epsilon as it was: 8e-4. Its weights stored in bfloat16: 0.012; one important
# head silenced: 0.1 and 0.7. (Computed in bfloat16: 0.05, so there nothing is taken for equal.)
TOLERANCE = 2e-3


@dataclass(frozen=True, slots=True)
class Apart:
    """The largest difference of two models' readouts, and up to which they are equal, in the
    readout's unit."""

    largest: float
    tolerance: float

    @property
    def equal(self) -> bool:
        return self.largest <= self.tolerance

    @property
    def facts(self) -> dict[str, Any]:
        return {"largest": self.largest, "tolerance": self.tolerance}


def least(data: Samples) -> float:
    """Up to which difference of two readouts they are equal, in the readout's unit; 0 where the
    base's counterfactual prompts were not read."""
    clean, other = data.get(READOUT, role=BASE), data.get(COUNTERFACTUAL, role=BASE)
    if clean is None or other is None:
        return 0.0
    return TOLERANCE * float(abs(clean - other).mean())


def apart(data: Samples, role: str, *, clean_alone: bool = False) -> Apart | None:
    """Of the readouts on all prompts of the pairs that were read of both models, the
    counterfactual ones among them; None where these were not read of `role`, and `clean_alone`
    does not say that the others will do."""
    theirs = data.get(COUNTERFACTUAL, role=role)
    if theirs is None and not clean_alone:
        return None
    differences = [data.need(READOUT, role=role) - data.need(READOUT, role=BASE)]
    if theirs is not None:
        differences.append(theirs - data.need(COUNTERFACTUAL, role=BASE))
    largest = max(float(abs(one).max(initial=0.0)) for one in differences)
    return Apart(largest, least(data))


def may_be_equal(data: Samples, role: str) -> bool:
    """Whether what was read of the clean prompts is the same, though patching says that parts of
    the model are not: then its counterfactual prompts are worth a look."""
    if data.get(COUNTERFACTUAL, role=BASE) is None or data.get(READOUT, role=role) is None:
        return False
    found = apart(data, role, clean_alone=True)
    return (
        found is not None
        and found.equal
        and any(
            float(abs(values).max(initial=0.0)) > found.tolerance for values in _damages(data, role)
        )
    )


def is_renamed(data: Samples, role: str) -> bool:
    """Whether a model computes the base's function and its parts could not be matched: what was
    patched is not what the names say."""
    found = apart(data, role)
    return found is not None and found.equal and may_be_equal(data, role)


def matches(data: Samples, role: str) -> dict[str, str]:
    """By head of the base, the head of `role` that does its work, of those that moved."""
    notes = (note for note in data.notes if note.code == "heads_matched")
    return next((dict(one.facts["heads"]) for one in notes if one.facts["role"] == role), {})


def _damages(data: Samples, role: str) -> Iterator[FloatArray]:
    return (
        values
        for key, values in data.arrays.items()
        if (key.quantity, key.role) == (DAMAGE, role) and not key.subject.startswith("control ")
    )
