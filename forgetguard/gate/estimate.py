"""From samples to bounds, without any limit: what each kind of measure estimates, and how surely.


False release: each pass is taken at alpha = 1 - confidence, for "all limits are kept" is an
intersection-union claim. False alarm: the limits of a run are one family, and each fails at
alpha / family (Bonferroni), so that the run raises a false alarm with at most alpha; the subjects
of one limit share that by max-T. Where units are drawn stage by stage, both are spent over the
stages (gate/spending.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import accuracy, guard, power, spending, studentised
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.resampling import RESAMPLES, cluster_codes, derive_seed, enough_resamples
from forgetguard.gate.verdict import Estimate, exactly
from forgetguard.measures.measure import Estimator, Measure, Series, Subjects
from forgetguard.measures.samples import (
    BASE,
    BASELINE,
    CIRCUIT,
    IMPORTANCE,
    TUNED,
    WHOLE,
    FloatArray,
    Key,
    Samples,
    member_names,
    ordered,
)

# Units of equal weight that a number of all of them must come to; below, its interval misses too
# often (docs/drift.md, "Conflict of gradients"). So no unit may make more than a quarter of it.
FEWEST_EFFECTIVE = 16


@dataclass(frozen=True, slots=True)
class Levels:
    """One-sided error rates of one decision: of the upper bound, on which a limit passes, and of
    the lower, on which it fails."""

    passing: float
    failing: float

    @classmethod
    def of(cls, confidence: float, family: int, stages: Sequence[int], units: int) -> Levels:
        """Those of one of `family` limits at the stage with that many `units`."""
        alpha = 1 - confidence
        if not stages:
            return cls(alpha, alpha / family)
        if units not in stages:
            raise MeasurementError(
                f"{units} pairs are none of the stages {tuple(stages)}: this is a defect of "
                "forgetguard, please report it"
            )
        place = list(stages).index(units)
        spent = [spending.spent(stages, alpha / limits)[place] for limits in (1, family)]
        return cls(*spent)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is held to a limit: an estimate, whose bounds are at the passing level, and its lower
    bound at the failing level, corrected for the run's limits and the limit's subjects.

    guarded: the upper bound with one imagined pair, where the limit has a guard (gate/guard.py).
    error: the standard error of a ratio of means, with `freedom` degrees of freedom.
    unevenness: the squared coefficient of variation of its denominator over units.
    """

    estimate: Estimate
    corrected_low: float
    guarded: float = -math.inf
    error: float = 0.0
    freedom: float = math.inf
    unevenness: float = 0.0

    @property
    def high(self) -> float:
        """What must be within a limit to pass it."""
        return max(self.estimate.high, self.guarded)

    def or_more(self, other: Bounds) -> Bounds:
        """The larger of two numbers that are both held to the limit: it is within where both are,
        and beyond it where either is."""
        one, two = self.estimate, other.estimate
        larger = replace(
            one,
            value=max(one.value, two.value),
            low=max(one.low, two.low),
            high=max(one.high, two.high),
        )
        guarded = max(self.guarded, other.guarded)
        return Bounds(larger, max(self.corrected_low, other.corrected_low), guarded)


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The samples of one gate file, checked, in an order that depends on the texts alone, and the
    levels at which bounds are taken."""

    spec: GateSpec
    data: Samples
    members: tuple[str, ...]  # of the circuit
    family: int  # limits of the run
    levels: Levels
    seed: int
    clusters: npt.NDArray[np.intp] | None
    guard: float = 0.0  # of the limit at hand

    @classmethod
    def of(cls, spec: GateSpec, samples: Samples, *, seed: int, family: int) -> Case:
        """Raises MeasurementError as `ordered`, SpecificationError where `family` is below 1."""
        if family < 1:
            raise SpecificationError(f"a run has at least 1 limit, got a family of {family}")
        data = ordered(samples, spec.name)
        return cls(
            spec,
            data,
            member_names(spec.members),
            family,
            Levels.of(spec.confidence, family, data.stages, data.count),
            derive_seed(seed, spec.name),
            cluster_codes([unit.template for unit in data.units]),
        )

    @property
    def count(self) -> int:
        """Units."""
        return self.data.count

    @property
    def templates(self) -> int:
        """Those that the units name."""
        return len({unit.template for unit in self.data.units if unit.template})

    @property
    def has_templates(self) -> bool:
        """Whether templates of several units are resampled."""
        return self.clusters is not None and len(np.unique(self.clusters)) < self.count

    @property
    def drawn(self) -> float:
        """Templates that are resampled, as power.py takes them: of uneven size their effective
        number, as in `LinearForm.freedom`; infinitely many where pairs are resampled."""
        if self.clusters is not None and self.has_templates:
            return effective(np.unique(self.clusters, return_counts=True)[1])
        return math.inf

    def by_template(self, measure: Measure) -> bool:
        """Whether templates are resampled for a measure: a task's documents have none, even where
        they are as many as the pairs."""
        own_units = measure.estimator is Estimator.SCORES and measure.subjects is not Subjects.WHOLE
        return self.has_templates and not own_units

    def mean(self, values: FloatArray) -> Estimate:
        """The mean of [n] with its interval at the gate's confidence."""
        return self.means(values[None])[0]

    def means(self, rows: FloatArray) -> tuple[Estimate, ...]:
        """`mean` of each row of [row, n]."""
        return studentised.means(
            rows, confidence=self.spec.confidence, seed=self.seed, clusters=self.clusters
        )

    def ratio(self, numerator: FloatArray, denominator: FloatArray) -> Bounds:
        """The ratio of the means of [n] and [n]."""
        return self.ratios(numerator[None], denominator[None])[0]

    def ratios(self, numerators: FloatArray, denominators: FloatArray) -> list[Bounds]:
        """The ratio of means of each row of [row, n] and [row, n]. The rows are one family: their
        lower bounds hold together at the failing level, by max-T (gate/studentised.py).

        The intervals do not depend on the size of the run's family.
        """
        failing = self.levels.failing
        found = self._family(numerators, denominators, failing)
        shown = found
        if enough_resamples(RESAMPLES, failing) > RESAMPLES:
            shown = self._family(numerators, denominators, self.levels.passing)  # on its own draws
        uneven = power.unevenness(denominators)
        rows = zip(shown.estimates, found.corrected_low, found.errors, uneven.tolist(), strict=True)
        return [
            Bounds(estimate, low, error=error, freedom=found.freedom, unevenness=unevenness)
            for estimate, low, error, unevenness in rows
        ]

    def vulnerabilities(self, damage: FloatArray, importance: FloatArray) -> list[Bounds]:
        """What of each row's ratio, [row, n] and [row, n], is held to a limit; the rows are one
        family, as of `ratios`.

        Where the importance is negative the row works against the capability. Its DCV rises as it
        ceases to, and falls below 0 as it does more harm: neither may be beyond the limit.
        """
        against = np.flatnonzero(importance.mean(axis=1) < 0)
        rows = (
            np.concatenate([damage, -damage[against]]),
            np.concatenate([importance, importance[against]]),
        )
        found = self.ratios(*rows)
        if self.guard > 0:
            alpha = self.levels.passing
            high = guard.upper(*rows, loss=self.guard, alpha=alpha, seed=self.seed)
            found = [
                replace(one, guarded=float(most)) for one, most in zip(found, high, strict=True)
            ]
        held = found[: len(damage)]
        for place, harm in zip(against.tolist(), found[len(damage) :], strict=True):
            held[place] = held[place].or_more(harm)
        return held

    def accuracy(self, right: FloatArray) -> Estimate:
        """The share of [n] pairs that are answered right, with its interval at the gate's
        confidence."""
        clusters = self.clusters if self.has_templates else None
        return accuracy.accuracy(right != 0, confidence=self.spec.confidence, clusters=clusters)

    def proportion_drop(
        self, before: FloatArray, now: FloatArray, failing: float | None = None
    ) -> Bounds:
        """The drop of a proportion from `before` to `now`, each [n] of 0 and 1; `failing`: the
        level of its lower bound, by default this case's."""
        failing = self.levels.failing if failing is None else failing
        clusters = self.clusters if self.has_templates else None
        shown, lower = (
            accuracy.accuracy_drop(before != 0, now != 0, confidence=1 - level, clusters=clusters)
            for level in (self.levels.passing, failing)
        )
        return Bounds(shown, lower.low)

    def score_drop(self, found: Series, failing: float, *, over: str = "") -> Bounds:
        """The drop of a score from 0 to 1 on the units of one subject, [its units]; exactly 0 where
        the numbers behind it are the same, bit for bit. `failing`: the level of the lower bound,
        which two numbers that are held to the limit share."""
        # Of the base and without a chance flips are never below the net loss.
        alone = found.also is not None and found.chance == 0 and not over
        failing /= 1 if alone or found.also is None else 2
        case = replace(self, levels=replace(self.levels, failing=failing))
        before, now = _given(found.scale), found.values
        same = np.array_equal(before, now)
        graded, graded_before = found.graded, found.graded_before
        known = graded is not None and graded_before is not None
        if same and known and np.array_equal(_given(graded), _given(graded_before)):
            level = studentised.coverage(1 - self.levels.passing)
            return Bounds(Estimate(0.0, 0.0, 0.0, level, len(now)), 0.0)
        if same:  # of graded scores too: a mean without a spread would be taken to be exact
            held = case.proportion_drop(np.ones(len(now)), np.ones(len(now)))
        elif np.isin((before, now), (0.0, 1.0)).all():
            held = case.proportion_drop(before, now)
        else:
            held = case.ratio(before - now, np.ones(len(now)))
        if found.also is None:
            return held
        shown, lower = (
            accuracy.flips(
                found.also,
                1.0 if over else found.chance,
                confidence=1 - level,
                clusters=self.clusters,
            )
            for level in (self.levels.passing, failing)
        )
        flips = Bounds(shown, lower.low)
        return flips if alone else held.or_more(flips)

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

    def circuit_importance(self) -> FloatArray | None:
        """[n]; None where no circuit was patched."""
        return self.data.get(IMPORTANCE, CIRCUIT, BASE)

    def check_over(self, over: str, key: str, line: int) -> None:
        """Raises SpecificationError where the model that a limit compares with was not measured."""
        if over and not self.data.has_role(over):
            needed = (
                "a baseline: give --forgetguard-baseline PATH"
                if over == "baseline"
                else "a third checkpoint: give reference=..."
            )
            raise SpecificationError(f"{self.spec.where(line)}: limits.{key} needs {needed}")

    def series(self, measure: Measure, subject: str = WHOLE, over: str = "") -> Series:
        """A subject's numbers; with `over`, tuned minus that model's, unit by unit.

        Raises:
            MeasurementError: they were not measured, or are relative to something else in each of
                the two models, so that numerators cannot be subtracted.
            SpecificationError: the baseline did not record them.
        """
        now = measure.select(self.data, subject, TUNED)
        if not over:
            return now
        try:
            then = measure.select(self.data, subject, over)
        except MeasurementError as error:
            raise self._missing(measure, over) or error from None
        if measure.estimator in (Estimator.PROPORTION, Estimator.SCORES):
            also = None if now.also is None or then.also is None else now.also - then.also
            return Series(now.values, then.values, now.graded, then.graded, also, now.chance)
        if now.scale is not None and not np.array_equal(now.scale, _given(then.scale)):
            raise MeasurementError(
                f"{measure.key} is relative to another {subject or 'scale'} in {TUNED} than in "
                f"{over}, so the two cannot be subtracted: its scale must come from the base"
            )
        values = now.values - then.values
        # What is read of the base alone is the same beside another model: a 0 that no unit carries.
        return replace(now, values=values, shares=now.shares if values.any() else None)

    def exact(self, measure: Measure, subject: str = WHOLE, over: str = "") -> Estimate:
        """A subject's number that is not sampled; with `over`, tuned's minus that model's."""
        values = [self._exact(measure, subject, role) for role in (TUNED, over) if role]
        return exactly(values[0] - sum(values[1:]))

    def _exact(self, measure: Measure, subject: str, role: str) -> float:
        found = self.data.exact.get(Key(measure.key, subject, role))
        if found is None:
            raise self._missing(measure, role) or MeasurementError(
                f"{Key(measure.key, subject, role)} was not measured: this is a defect of the "
                "measure, please report it"
            )
        return found

    def _missing(self, measure: Measure, role: str) -> SpecificationError | None:
        """Why there are no numbers in the role of a baseline; None for another role."""
        if role != BASELINE:
            return None
        return SpecificationError(
            f"{self.spec.where(1)}: {measure.key} is not in what the baseline recorded of "
            f"{self.spec.name!r}: record it anew with --forgetguard-update"
        )

    def bounds(self, measure: Measure, subjects: Sequence[str], over: str = "") -> list[Bounds]:
        """What of each subject is held to a limit; the subjects are one family.

        A ratio's denominators must be measurable (`studentised.measurable`).
        """
        if measure.estimator is Estimator.EXACT:
            exact = [self.exact(measure, one, over) for one in subjects]
            return [Bounds(one, one.value) for one in exact]
        found = [self.series(measure, one, over) for one in subjects]
        if measure.estimator is Estimator.PROPORTION:
            share = self.levels.failing / len(found)
            return [self.proportion_drop(_given(one.scale), one.values, share) for one in found]
        if measure.estimator is Estimator.SCORES:
            share = self.levels.failing / len(found)
            case = replace(self, clusters=self.clusters if self.by_template(measure) else None)
            return [case.score_drop(one, share, over=over) for one in found]
        values = np.stack([one.values for one in found])
        if measure.estimator is Estimator.MEAN:
            held = self.ratios(values, np.ones_like(values))
            return [
                _of_few(bounds) if _is_of_few(one) else bounds
                for one, bounds in zip(found, held, strict=True)
            ]
        return self.vulnerabilities(values, np.stack([_given(one.scale) for one in found]))


def effective(shares: npt.NDArray[Any]) -> float:
    """To how many units of equal weight shares, [n], come (Kish 1965): n where all are alike."""
    return float(shares.sum() ** 2 / (shares**2).sum())


def _is_of_few(found: Series) -> bool:
    return found.shares is not None and effective(found.shares) < FEWEST_EFFECTIVE


def _of_few(held: Bounds) -> Bounds:
    """All that such a number may be, and no lower bound to fail on."""
    return Bounds(replace(held.estimate, low=-1.0, high=1.0), -math.inf)


def _given(scale: FloatArray | None) -> FloatArray:
    if scale is None:
        raise MeasurementError(
            "a ratio, or a proportion, came without what it is relative to: this is a defect of "
            "the measure, please report it"
        )
    return scale
