"""A verdict: what was declared, what was measured, what was decided, and the evidence. Codes and
numbers only; report/wording.py has the words."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forgetguard.measures.samples import Note


class Outcome(enum.Enum):
    """What a limit came to. Only `PASS` lets a release through."""

    PASS = "pass"
    FAIL = "fail"
    ABSTAIN = "abstain"


class Code(enum.Enum):
    """Why a limit came to its outcome."""

    WITHIN = "within"  # the upper bound is within the limit
    IDENTICAL = "identical"  # the models read the same on every unit, bit for bit
    BEYOND = "beyond"  # the lower bound is beyond the limit
    UNDECIDED = "undecided"  # the interval holds the limit
    GUARDED = "guarded"  # within the limit, but not if one more pair lost as much as the guard says
    TOO_FEW = "too_few"  # units for any interval
    FEW_CARRY = "few_carry"  # so few units make up a number of all of them that it has no interval
    BASE_WRONG = "base_wrong"  # the base answers no more prompts right than chance does
    BASE_READOUT = "base_readout"  # the base's mean readout is not above 0
    BASE_UNMOVED = "base_unmoved"  # ... nor above that on the counterfactual prompts
    NOTHING_TO_LOSE = "nothing_to_lose"  # the limit allows all that the base has above chance
    NO_CIRCUIT = "no_circuit"  # `circuit: auto` found none
    NO_SCALE = "no_scale"  # what the loss is relative to cannot be told from 0
    NO_HEAD = "no_head"  # no head's importance can be told from 0
    SAME_FUNCTION = "same_function"  # the models compute the same, and parts were renamed
    RENAMED = "renamed"  # so of one of two models that are compared, and the parts do not match
    SATURATED = "saturated"  # the readout leaves no room to see a loss


# Nothing can be said of what tuned lost, by however many units.
_NOT_JUDGED = frozenset({
    Code.TOO_FEW, Code.FEW_CARRY, Code.BASE_WRONG, Code.BASE_READOUT, Code.BASE_UNMOVED,
    Code.NOTHING_TO_LOSE, Code.NO_CIRCUIT, Code.NO_SCALE, Code.NO_HEAD, Code.RENAMED,
})  # fmt: skip
_OF_WIDTH = frozenset({Code.UNDECIDED.value, Code.GUARDED.value})


def not_judged(code: Code, facts: Mapping[str, Any]) -> bool:
    """Whether an abstention says that there is nothing to judge by. Not one of an interval that is
    too wide: there something was measured, and was not shown to be kept."""
    if code is Code.SATURATED:
        return facts.get("instead") not in _OF_WIDTH
    return code in _NOT_JUDGED


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its two-sided confidence interval.

    `coverage` is that of [low, high], so each bound is one-sided at `1 - (1 - coverage) / 2`. `n`
    counts the units (prompt pairs, prompts) it rests on; 0: it is exact, and has no width.
    """

    value: float
    low: float
    high: float
    coverage: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds, lower first."""
        return self.low, self.high

    @property
    def facts(self) -> dict[str, float]:
        """Value and bounds, as the facts of codes and notes hold them."""
        return {"value": self.value, "low": self.low, "high": self.high}


def exactly(value: float) -> Estimate:
    """A number that is not sampled."""
    return Estimate(value, value, value, 1.0, 0)


def mostly_own(own: Estimate, damage: Estimate) -> bool:
    """Whether a head does at least half of its damage itself, and surely some."""
    return own.low > 0 and 2 * own.value >= damage.value


@dataclass(frozen=True, slots=True)
class SubjectEvidence:
    """One head's (member's, layer's, matrix's) numbers, as the report shows them.

    `value` is None where it cannot be measured; `scale` is what it is relative to, an importance
    for DCV, None where there is no such thing. `own` is the part of the damage that a head does
    itself, not inherits from heads before it; None where it was not measured. `notes` say what is
    special about it.
    """

    subject: str
    value: Estimate | None
    scale: Estimate | None = None
    own: Estimate | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlEvidence:
    """Other heads beside a circuit: what tuned's contributions of `members` cost on the same pairs,
    as a share of the importance of the verdict's circuit, so that the numbers compare. `dcv` is
    None where nothing was measured, and `note` then says why. A control decides nothing."""

    name: str  # "random 1", or the circuit they are taken from
    members: tuple[str, ...]
    dcv: Estimate | None
    note: Note | None = None


@dataclass(frozen=True, slots=True)
class UnitEvidence:
    """A prompt, or prompt pair, that was hurt. For pairs, readouts F in nats (logit or
    log-probability): `patched` is F(base, x with the circuit's contributions from tuned)."""

    clean: str
    loss: float
    counterfactual: str | None = None
    answer: str | None = None
    distractor: str | None = None
    base: float | None = None  # F(base, x)
    patched: float | None = None
    tuned: float | None = None  # F(tuned, x)
    base_says: str | None = None  # the token that it finds likeliest
    tuned_says: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one declared limit. True where it is a pass, and only there: `assert verdict`
    must not let a failed one through."""

    circuit: str  # the gate file's name
    capability: str  # empty in a gate file without one
    limit: str  # "dcv.circuit", "accuracy.drop.over_reference", ...
    bound: float  # the declared maximum
    outcome: Outcome
    estimate: Estimate | None  # None only when it abstains
    code: Code
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)  # plain values
    subjects: tuple[SubjectEvidence, ...] = ()  # mostly own damage first, then by value
    units: tuple[UnitEvidence, ...] = ()  # most hurt first
    file: str = ""  # where the limit was declared
    line: int = 0  # 1-based
    notes: tuple[Note, ...] = ()  # dropped pairs, resized vocabulary, ...
    subject: str = ""  # of a limit on each part: the one that decided, whose estimate this is;
    # of several that fail the first to look at (gate/family.py, `foremost`)
    family: int = 1  # limits of the run that share its false-alarm rate
    detectable: float | None = None  # the smallest true value that fails with probability 0.80
    budget: int | None = None  # units that might have been drawn, where drawing was sequential
    controls: tuple[ControlEvidence, ...] = ()

    def __bool__(self) -> bool:
        return self.outcome is Outcome.PASS

    @property
    def not_judged(self) -> bool:
        """Whether it abstains because there is nothing to judge by."""
        return self.outcome is Outcome.ABSTAIN and not_judged(self.code, self.facts)
