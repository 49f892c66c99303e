"""A verdict: what was declared, what was measured, what was decided, and the evidence."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Outcome(enum.Enum):
    """What a limit came to. Only `PASS` lets a release through."""

    PASS = "pass"
    FAIL = "fail"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its two-sided confidence interval.

    `confidence` is the coverage of [low, high], so each bound is one-sided at
    `1 - (1 - confidence) / 2`. `n` counts the prompt pairs it rests on.
    """

    value: float
    low: float
    high: float
    confidence: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds, lower first."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class HeadEvidence:
    """One head's numbers, as the report shows them. `dcv` is None where the head abstains, and
    `note` then says why. `own` is the part of the damage that the head does itself, not inherits
    from heads before it; None where it was not measured."""

    head: str
    importance: Estimate
    dcv: Estimate | None
    note: str = ""
    own: Estimate | None = None


@dataclass(frozen=True, slots=True)
class ControlEvidence:
    """Other heads beside a circuit: what tuned's contributions of `members` cost on the same pairs,
    as a share of the importance of the verdict's circuit, so that the numbers compare. `dcv` is
    None where nothing was measured, and `note` then says why. A control decides nothing."""

    name: str  # "random 1", or the circuit they are taken from
    members: tuple[str, ...]
    dcv: Estimate | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """A prompt pair that the patched damage hurt: readouts F in nats (logit or log-probability)."""

    clean: str
    counterfactual: str
    answer: str
    distractor: str | None
    base: float  # F(base, x)
    patched: float  # F(base, x with the circuit's contributions from tuned)
    tuned: float  # F(tuned, x)

    @property
    def loss(self) -> float:
        """What the tuned heads cost on this pair, in nats."""
        return self.base - self.patched


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one declared limit of one circuit. True where it is a pass, and only there:
    `assert verdict` must not let a failed one through."""

    circuit: str  # the circuit's name
    capability: str
    limit: str  # "dcv.circuit", "dcv.head", "accuracy.drop", ...
    bound: float  # the declared maximum
    outcome: Outcome
    estimate: Estimate | None  # None only when it abstains
    reason: str  # one sentence: why this outcome
    worst_heads: tuple[HeadEvidence, ...] = ()  # mostly own damage first, then by DCV
    worst_pairs: tuple[PairEvidence, ...] = ()  # most hurt first
    file: str = ""  # where the limit was declared
    line: int = 0  # 1-based
    notes: tuple[str, ...] = field(default=())  # dropped pairs, resized vocabulary, ...
    head: str = ""  # for a limit on every head: the one that decided, whose estimate this is
    family: int = 1  # limits of the run that share its false-alarm rate
    detectable: float | None = None  # the smallest true value that fails with probability 0.80
    budget: int | None = None  # pairs that might have been drawn, where drawing was sequential
    controls: tuple[ControlEvidence, ...] = ()

    def __bool__(self) -> bool:
        return self.outcome is Outcome.PASS
