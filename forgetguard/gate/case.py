"""One limit with the data it is decided on, and the levels at which its bounds are taken. [light]

False release: each pass is taken at alpha = 1 - confidence, for "all limits are kept" is an
intersection-union claim. False alarm: the limits of a run are one family, and each fails at
alpha / family (Bonferroni), so that the run raises a false alarm with at most alpha; the heads of
one limit share that by max-T. Where pairs are drawn look by look, both are spent over the looks
(gate/spending.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.members import Member
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import accuracy, spending, studentised
from forgetguard.gate.declaration import CircuitSpec, Limit
from forgetguard.gate.measurement import FloatArray, Measurement, ordered
from forgetguard.gate.recorded import Recorded
from forgetguard.gate.resampling import RESAMPLES, cluster_codes, derive_seed, enough_resamples
from forgetguard.gate.verdict import Estimate


@dataclass(frozen=True, slots=True)
class Levels:
    """One-sided error rates of one decision: of the upper bound, on which a limit passes, and of
    the lower, on which it fails."""

    passing: float
    failing: float

    @classmethod
    def of(cls, confidence: float, family: int, looks: Sequence[int], pairs: int) -> Levels:
        """Those of one of `family` limits at the look with that many `pairs`."""
        alpha = 1 - confidence
        if not looks:
            return cls(alpha, alpha / family)
        if pairs not in looks:
            raise MeasurementError(
                f"{pairs} pairs are none of the looks {tuple(looks)}: this is a defect of "
                "forgetguard, please report it"
            )
        place = list(looks).index(pairs)
        spent = [spending.spent(looks, alpha / limits)[place] for limits in (1, family)]
        return cls(*spent)


@dataclass(frozen=True, slots=True)
class Held:
    """What is held to a limit: an estimate, whose bounds are at the passing level, and its lower
    bound at the failing level."""

    estimate: Estimate
    low: float

    def or_more(self, other: Held) -> Held:
        """The larger of two numbers that are both held to the limit: it is within where both are,
        and beyond it where either is."""
        one, two = self.estimate, other.estimate
        larger = replace(
            one,
            value=max(one.value, two.value),
            low=max(one.low, two.low),
            high=max(one.high, two.high),
        )
        return Held(larger, max(self.low, other.low))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A limit with its data, checked, and in an order that depends on the texts alone."""

    spec: CircuitSpec
    limit: Limit
    data: Measurement
    heads: tuple[Member, ...]
    family: int  # limits of the run
    levels: Levels
    seed: int
    clusters: npt.NDArray[np.intp] | None

    @classmethod
    def of(
        cls, spec: CircuitSpec, limit: Limit, measurement: Measurement, *, seed: int, family: int
    ) -> Case:
        """Raises MeasurementError as `ordered`."""
        data = ordered(measurement, spec.name)
        return cls(
            spec,
            limit,
            data,
            tuple(sorted(spec.heads)),
            family,
            Levels.of(spec.confidence, family, data.looks, len(data.pairs)),
            derive_seed(seed, spec.name),
            cluster_codes([pair.template for pair in data.pairs]),
        )

    @property
    def count(self) -> int:
        """Pairs."""
        return len(self.data.pairs)

    @property
    def has_templates(self) -> bool:
        """Whether templates of several pairs are resampled."""
        return self.clusters is not None and len(np.unique(self.clusters)) < self.count

    def mean(self, values: FloatArray) -> Estimate:
        """The mean of [n] with its interval at the circuit's confidence."""
        return self.means(values[None])[0]

    def means(self, rows: FloatArray) -> tuple[Estimate, ...]:
        """`mean` of each row of [row, n]."""
        return studentised.means(
            rows, confidence=self.spec.confidence, seed=self.seed, clusters=self.clusters
        )

    def ratio(self, numerator: FloatArray, denominator: FloatArray) -> Held:
        """The ratio of the means of [n] and [n]."""
        return self.ratios(numerator[None], denominator[None])[0]

    def ratios(self, numerators: FloatArray, denominators: FloatArray) -> list[Held]:
        """The ratio of means of each row of [row, n] and [row, n]. The rows are one family: their
        lower bounds hold together at the failing level, by max-T (gate/studentised.py).

        The intervals do not depend on the size of the run's family.
        """
        failing = self.levels.failing
        found = self._family(numerators, denominators, failing)
        shown = found
        if enough_resamples(RESAMPLES, failing) > RESAMPLES:
            shown = self._family(numerators, denominators, self.levels.passing)  # on its own draws
        return [
            Held(estimate, low)
            for estimate, low in zip(shown.estimates, found.corrected_low, strict=True)
        ]

    def vulnerabilities(self, damage: FloatArray, importance: FloatArray) -> list[Held]:
        """What of each row's DCV, [row, n] and [row, n], is held to the limit; the rows are one
        family, as of `ratios`.

        Where the importance is negative the row works against the capability. Its DCV rises as it
        ceases to, and falls below 0 as it does more harm: neither may be beyond the limit.
        """
        against = np.flatnonzero(importance.mean(axis=1) < 0)
        found = self.ratios(
            np.concatenate([damage, -damage[against]]),
            np.concatenate([importance, importance[against]]),
        )
        held = found[: len(damage)]
        for place, harm in zip(against.tolist(), found[len(damage) :], strict=True):
            held[place] = held[place].or_more(harm)
        return held

    def accuracy_drop(self, then: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]) -> Held:
        """The drop from `then` to `now`, each [n]."""
        clusters = self.clusters if self.has_templates else None
        shown, lower = (
            accuracy.accuracy_drop(then, now, confidence=1 - level, clusters=clusters)
            for level in (self.levels.passing, self.levels.failing)
        )
        return Held(shown, lower.low)

    def _family(
        self, numerators: FloatArray, denominators: FloatArray, failing: float
    ) -> studentised.Family:
        return studentised.ratios(
            numerators,
            denominators,
            confidence=1 - self.levels.passing,
            fail_alpha=failing,
            seed=self.seed,
            clusters=self.clusters,
        )

    def circuit_importance(self) -> FloatArray:
        """[n]."""
        return self._given(self.data.circuit_importance, "the importance of the circuit")

    def circuit_damage(self) -> FloatArray:
        """[n]; for a limit over the reference or the baseline, tuned minus that pair by pair."""
        damage = self._given(self.data.circuit_damage, "the damage of the circuit")
        if self.limit.needs_baseline:
            return damage - self._compared(self.recorded().circuit_damage)
        if self.limit.needs_reference:
            return damage - self._compared(self.data.reference_circuit_damage)
        return damage

    def recorded(self) -> Recorded:
        """What the baseline recorded on these pairs (raises SpecificationError: there is none)."""
        if self.data.baseline is None:
            raise self._incomparable()
        return self.data.baseline

    def all_heads(self) -> tuple[FloatArray, FloatArray]:
        """(damage, importance) of every head of the model together, each [n]."""
        damage = self._given(self.data.all_damage, "the damage of all heads")
        return damage, self._given(self.data.all_importance, "the importance of all heads")

    def head_arrays(self) -> tuple[FloatArray, FloatArray]:
        """(damage, importance), each [heads, n], in the order of `heads`; damage as above."""
        if not self.heads:
            raise SpecificationError(
                f"{self.spec.where(self.limit.line)}: limits.{self.limit.key} needs the circuit's "
                "heads: name them in circuit: [...]"
            )
        damage, importance = [], []
        for head in self.heads:
            own = self._given(self.data.head_damage.get(head), f"the damage of head {head}")
            if self.limit.needs_baseline:
                own = own - self._compared(self.recorded().head_damage.get(head))
            elif self.limit.needs_reference:
                own = own - self._compared(self.data.reference_head_damage.get(head))
            damage.append(own)
            importance.append(
                self._given(self.data.head_importance.get(head), f"the importance of head {head}")
            )
        return np.stack(damage), np.stack(importance)

    def _given(self, values: FloatArray | None, what: str) -> FloatArray:
        if values is None:
            raise MeasurementError(
                f"circuit {self.spec.name!r}: limit {self.limit.key} needs {what}, which was not "
                "measured: this is a defect of forgetguard, please report it"
            )
        return values

    def _compared(self, values: FloatArray | None) -> FloatArray:
        if values is None:
            raise self._incomparable()
        return values

    def _incomparable(self) -> SpecificationError:
        needed = (
            "a baseline: give --forgetguard-baseline PATH"
            if self.limit.needs_baseline
            else "a third checkpoint: give reference=..."
        )
        return SpecificationError(
            f"{self.spec.where(self.limit.line)}: limits.{self.limit.key} needs {needed}"
        )
