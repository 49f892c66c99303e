"""What was read of the models, unit by unit: the numbers that every estimate rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import Prompt, PromptPair
from forgetguard.errors import MeasurementError

if TYPE_CHECKING:  # reading gate files and listing measures need no numpy
    import numpy as np
    import numpy.typing as npt

FloatArray: TypeAlias = "npt.NDArray[np.float64]"
Unit: TypeAlias = PromptPair | Prompt

BASE, TUNED, REFERENCE, BASELINE = "base", "tuned", "reference", "baseline"
WHOLE = ""  # the subject of a number that is about no part
CIRCUIT, ALL_HEADS = "circuit", "all"

# What is read of every model on prompt pairs, whatever is measured.
READOUT, CORRECT, TOP1 = "readout", "correct", "top1"
SAID = "said"  # the id of the token that the model finds likeliest, exact in a float64
COUNTERFACTUAL = "counterfactual"  # F of the same answers on the counterfactual prompts; of base
# What patching a set of members costs: from the counterfactual, from another model, and the part of
# the latter that the members do themselves.
IMPORTANCE, DAMAGE, OWN_DAMAGE = "importance", "damage", "own_damage"


class Key(NamedTuple):
    """Names one array: what it is, of which part (a member, a layer, `circuit`, or the whole), and
    of which model: base, tuned, reference, or what a baseline recorded."""

    quantity: str
    subject: str
    role: str

    def __str__(self) -> str:
        part = f" of {self.subject}" if self.subject else ""
        return f"{self.quantity}{part} ({self.role})"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a reader should know, as a code with its numbers and names; report/ has the
    words."""

    code: str
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Control:
    """Other members, patched from tuned on the same units; their damage is in the samples under the
    subject `control NAME`. None where there were no such members, and `note` then says why."""

    name: str
    members: tuple[str, ...]
    note: Note | None = None

    @property
    def subject(self) -> str:
        return f"control {self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """What was read for one gate file on n units (prompt pairs or prompts).

    units: [n]. arrays: float64 [n] each, in the order of `units`. exact: numbers that are not
    sampled over units. dropped: pairs that did not align, left out already. stages: where drawing
    is sequential, how many units there are at each stage; n is one of them. tokens: the text of
    every token id that SAID holds.
    """

    units: tuple[Unit, ...]
    arrays: Mapping[Key, FloatArray]
    exact: Mapping[Key, float] = field(default_factory=dict)
    dropped: int = 0
    notes: tuple[Note, ...] = ()
    stages: tuple[int, ...] = ()
    controls: tuple[Control, ...] = ()
    tokens: Mapping[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Units."""
        return len(self.units)

    def get(self, quantity: str, subject: str = WHOLE, role: str = TUNED) -> FloatArray | None:
        """One array, None where it was not read."""
        return self.arrays.get(Key(quantity, subject, role))

    def need(self, quantity: str, subject: str = WHOLE, role: str = TUNED) -> FloatArray:
        """One array.

        Raises:
            MeasurementError: it was not read.
        """
        found = self.get(quantity, subject, role)
        if found is None:
            raise MeasurementError(
                f"{Key(quantity, subject, role)} was not measured: this is a defect of the measure "
                "that needs it, please report it"
            )
        return found

    def subjects(self, quantity: str, role: str = TUNED) -> tuple[str, ...]:
        """The parts that there are such arrays of, in the order in which they were read."""
        keys = (*self.arrays, *self.exact)
        return tuple(key.subject for key in keys if (key.quantity, key.role) == (quantity, role))

    def has_role(self, role: str) -> bool:
        """Whether anything was read of that model."""
        return any(key.role == role for key in (*self.arrays, *self.exact))

    def with_arrays(self, more: Mapping[Key, FloatArray]) -> Samples:
        """These and more."""
        return replace(self, arrays={**self.arrays, **more})

    def mapped(self, take: Callable[[FloatArray, Key], FloatArray]) -> Samples:
        """Every array through `take(array, what it is)`."""
        return replace(self, arrays={key: take(one, key) for key, one in self.arrays.items()})

    def at(self, index: slice | Sequence[int] | npt.NDArray[np.intp]) -> Samples:
        """These units only, or in another order, or drawn with repetition."""
        import numpy as np

        places = np.arange(self.count)[index]
        units = tuple(self.units[place] for place in places)
        return replace(self.mapped(lambda values, _: values[places]), units=units)


def texts(unit: Unit) -> tuple[str, ...]:
    """What makes two units the same: their texts, and the template they come from."""
    if isinstance(unit, Prompt):
        return unit.clean, unit.completion, unit.template
    return unit.clean, unit.counterfactual, unit.answer, unit.distractor or "", unit.template


def ordered(data: Samples, name: str) -> Samples:
    """The samples of gate file `name` as finite float64 arrays, units in the order of their texts,
    whatever order they were read in.

    Raises:
        MeasurementError: there is no unit though arrays were sampled, a shape differs, or a value
            is not finite.
    """
    import numpy as np

    if not data.units and not data.exact:
        raise MeasurementError(
            f"circuit {name!r}: no prompt pair was measured ({data.dropped} dropped): "
            "check its pairs"
        )
    for key, number in data.exact.items():
        if not np.isfinite(number):
            raise MeasurementError(f"circuit {name!r}: {key} is not finite: {number}")
    order = np.array(sorted(range(data.count), key=lambda at: texts(data.units[at])), dtype=np.intp)

    def checked(values: npt.ArrayLike, key: Key) -> FloatArray:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != order.shape:
            raise MeasurementError(
                f"circuit {name!r}: {key} has shape {array.shape} for {len(order)} units"
            )
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            raise MeasurementError(
                f"circuit {name!r}: {key} is not finite on {bad.size} of {data.count} units, first "
                f"on {data.units[bad[0]].clean!r}: look for NaN or infinity in the weights, or "
                "load with dtype float32"
            )
        return array

    return data.mapped(checked).at(order)


def joined(parts: Iterable[Samples]) -> Samples:
    """Samples of one gate file on different units as one, in the order of `parts`: the quantities
    that all of them have of the same subjects (a measure may have failed on one). What is no array
    is the last one's."""
    import numpy as np

    listed = list(parts)
    last = listed[-1]
    if len(listed) == 1:
        return last
    arrays = {
        key: np.concatenate([one.arrays[key] for one in listed])
        for key in last.arrays
        if all(_keys(one, key.quantity) == _keys(last, key.quantity) for one in listed)
    }
    return replace(
        last,
        units=tuple(unit for one in listed for unit in one.units),
        arrays=arrays,
        tokens={token: text for one in listed for token, text in one.tokens.items()},
    )


def _keys(one: Samples, quantity: str) -> set[Key]:
    return {key for key in one.arrays if key.quantity == quantity}


def member_names(members: Iterable[Member]) -> tuple[str, ...]:
    """`("L0H4", "L2MLP")`, in the order of the model."""
    return tuple(str(member) for member in sorted(members))
