"""From per-pair numbers to a verdict on one declared limit, as a pure function. [light]

Pass: the upper bound is within the limit. Fail: the lower bound is beyond it. Otherwise abstain.

What is not judged at all, and so abstains: fewer than `FEWEST_PAIRS` pairs (no interval is worth
its name there); a capability the base cannot do; a circuit whose importance cannot be told from
zero. Numbers that are not finite are errors, never verdicts.

A head whose importance in the base cannot be told from zero has no DCV: what it had to lose is not
measurable. That depends on the base alone, so a damaged checkpoint cannot hide behind it. But such
a head may do new harm, which no ratio to its own importance shows; so its damage is held to the
same limit as a share of the whole circuit's importance, and the verdict names it. Where no head is
measurable the limit abstains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from forgetguard.anatomy.members import Member
from forgetguard.capabilities.pairs import PromptPair
from forgetguard.errors import MeasurementError, SpecificationError
from forgetguard.gate import statistics
from forgetguard.gate.schema import CircuitSpec, Limit
from forgetguard.gate.verdict import Estimate, HeadEvidence, Outcome, PairEvidence, Verdict
from forgetguard.gate.yaml_lines import nearest

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FEWEST_PAIRS = 8
LEAST_BASE_ACCURACY = 0.5  # below it the base gets more prompts wrong than right
SMALL_CIRCUIT = 0.1  # share of the readout below which a circuit hardly carries the capability
SATURATED = 0.1  # nats of log-probability below which a relative drop says little


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
    all_importance: FloatArray | None = None  # the same with every head of the model
    all_damage: FloatArray | None = None
    head_importance: Mapping[Member, FloatArray] = field(default_factory=dict)
    head_damage: Mapping[Member, FloatArray] = field(default_factory=dict)
    head_own_damage: Mapping[Member, FloatArray] = field(default_factory=dict)  # not inherited
    reference_circuit_damage: FloatArray | None = None  # with the reference instead of tuned
    reference_head_damage: Mapping[Member, FloatArray] = field(default_factory=dict)
    dropped: int = 0  # pairs that did not align, already left out of the arrays
    notes: tuple[str, ...] = ()


def judge(
    spec: CircuitSpec, limit: Limit, measurement: Measurement, *, seed: int = 0, worst: int = 5
) -> Verdict:
    """Decide one limit of one circuit.

    The same data and seed give the same verdict, whatever the order of pairs, heads, limits or
    circuits: pairs and heads are put into an order of their own, and the draws depend on the run's
    seed and the circuit's name only. Raising a limit never turns a pass into anything else.

    Args:
        spec: the circuit; its `confidence` is the one-sided level.
        limit: one of its limits.
        measurement: what was measured on its pairs.
        seed: the run's.
        worst: how many prompt pairs to show at most.

    Raises:
        MeasurementError: a value is not finite, shapes differ, or what the limit needs is missing.
        SpecificationError: the limit compares with a reference and none was measured.
    """
    case = _Case.of(spec, limit, measurement, seed)
    decision = _decide(case)
    return Verdict(
        circuit=spec.name,
        capability=spec.capability,
        limit=limit.key,
        bound=limit.maximum,
        outcome=decision.outcome,
        estimate=decision.estimate,
        reason=decision.reason,
        worst_heads=decision.heads or _head_evidence(case),
        worst_pairs=_worst_pairs(case, worst),
        file="" if spec.path is None else str(spec.path),
        line=limit.line,
        notes=_notes(case) + decision.notes,
        head=decision.head,
    )


@dataclass(frozen=True, slots=True)
class _Decision:
    outcome: Outcome
    estimate: Estimate | None
    reason: str
    heads: tuple[HeadEvidence, ...] = ()
    notes: tuple[str, ...] = ()
    head: str = ""


def _abstain(reason: str, estimate: Estimate | None = None, **more: object) -> _Decision:
    return _Decision(Outcome.ABSTAIN, estimate, reason, **more)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """A limit with its data, checked, and in an order that depends on the texts alone."""

    spec: CircuitSpec
    limit: Limit
    data: Measurement
    heads: tuple[Member, ...]
    seed: int
    clusters: npt.NDArray[np.intp] | None

    @classmethod
    def of(cls, spec: CircuitSpec, limit: Limit, measurement: Measurement, seed: int) -> _Case:
        data = _ordered(spec, measurement)
        return cls(
            spec,
            limit,
            data,
            tuple(sorted(spec.heads)),
            statistics.derive_seed(seed, spec.name),
            statistics.cluster_codes([pair.template for pair in data.pairs]),
        )

    @property
    def count(self) -> int:
        return len(self.data.pairs)

    def mean(self, values: FloatArray) -> Estimate:
        return statistics.mean(
            values, confidence=self.spec.confidence, seed=self.seed, clusters=self.clusters
        )

    def means(self, rows: FloatArray) -> tuple[Estimate, ...]:
        return statistics.means(
            rows, confidence=self.spec.confidence, seed=self.seed, clusters=self.clusters
        )

    def ratio(self, numerator: FloatArray, denominator: FloatArray) -> Estimate:
        return statistics.ratio_of_means(
            numerator,
            denominator,
            confidence=self.spec.confidence,
            seed=self.seed,
            clusters=self.clusters,
        )

    def circuit_importance(self) -> FloatArray:
        return self._given(self.data.circuit_importance, "the importance of the circuit")

    def circuit_damage(self) -> FloatArray:
        """[n]; for a limit over the reference, tuned minus reference pair by pair."""
        damage = self._given(self.data.circuit_damage, "the damage of the circuit")
        if not self.limit.needs_reference:
            return damage
        return damage - self._reference(self.data.reference_circuit_damage)

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
            if self.limit.needs_reference:
                own = own - self._reference(self.data.reference_head_damage.get(head))
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

    def _reference(self, values: FloatArray | None) -> FloatArray:
        if values is None:
            raise SpecificationError(
                f"{self.spec.where(self.limit.line)}: limits.{self.limit.key} needs a third "
                "checkpoint: give reference=..."
            )
        return values


# --- checking --------------------------------------------------------------------------------


def _ordered(spec: CircuitSpec, data: Measurement) -> Measurement:
    """The measurement as finite float64 and bool arrays, pairs in the order of their texts."""
    if not data.pairs:
        raise MeasurementError(
            f"circuit {spec.name!r}: no prompt pair was measured ({data.dropped} dropped): "
            "check its pairs"
        )
    texts = [
        (pair.clean, pair.counterfactual, pair.answer, pair.distractor or "", pair.template)
        for pair in data.pairs
    ]
    order = np.array(sorted(range(len(texts)), key=texts.__getitem__))

    def take(values: npt.ArrayLike, what: str) -> FloatArray:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != order.shape:
            raise MeasurementError(
                f"circuit {spec.name!r}: {what} has shape {array.shape} for {len(order)} pairs"
            )
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            raise MeasurementError(
                f"circuit {spec.name!r}: {what} is not finite on {bad.size} of {len(order)} pairs, "
                f"first on {data.pairs[bad[0]].clean!r}: look for NaN or infinity in the weights, "
                "or load with dtype float32"
            )
        ordered: FloatArray = array[order]
        return ordered

    def maybe(values: FloatArray | None, what: str) -> FloatArray | None:
        return None if values is None else take(values, what)

    def by_head(values: Mapping[Member, FloatArray], what: str) -> dict[Member, FloatArray]:
        return {head: take(array, f"{what} of {head}") for head, array in values.items()}

    return replace(
        data,
        pairs=tuple(data.pairs[position] for position in order),
        base_readout=take(data.base_readout, "F(base, x)"),
        tuned_readout=take(data.tuned_readout, "F(tuned, x)"),
        base_correct=take(data.base_correct, "base correct") != 0,
        tuned_correct=take(data.tuned_correct, "tuned correct") != 0,
        circuit_importance=maybe(data.circuit_importance, "importance of the circuit"),
        circuit_damage=maybe(data.circuit_damage, "damage of the circuit"),
        all_importance=maybe(data.all_importance, "importance of all heads"),
        all_damage=maybe(data.all_damage, "damage of all heads"),
        head_importance=by_head(data.head_importance, "importance"),
        head_damage=by_head(data.head_damage, "damage"),
        head_own_damage=by_head(data.head_own_damage, "own damage"),
        reference_circuit_damage=maybe(
            data.reference_circuit_damage, "damage of the circuit by the reference"
        ),
        reference_head_damage=by_head(data.reference_head_damage, "damage by the reference"),
    )


def _base_cannot(case: _Case) -> str | None:
    """Why the base does not do the capability, if so: then there is nothing to lose."""
    accuracy = float(case.data.base_correct.mean())
    if accuracy < LEAST_BASE_ACCURACY:
        return (
            f"THE BASE CANNOT DO {case.spec.capability!r}: it is right on {accuracy:.0%} of "
            f"{case.count} pairs, so nothing can be said about losing it: check the prompts, the "
            "chat template and the base"
        )
    if case.spec.readout == "logit_diff":
        readout = case.mean(case.data.base_readout)
        if readout.low <= 0:
            return (
                f"THE BASE CANNOT DO {case.spec.capability!r}: its mean logit difference "
                f"{_interval(readout)} on {case.count} pairs is not above 0: check the prompts "
                "and which answer is the distractor"
            )
    return None


# --- deciding --------------------------------------------------------------------------------


def _decide(case: _Case) -> _Decision:
    judges: dict[str, Callable[[_Case], _Decision]] = {
        "dcv.circuit": _judge_circuit,
        "dcv.circuit.over_reference": _judge_circuit,
        "dcv.all": _judge_all,
        "dcv.head": _judge_heads,
        "dcv.head.over_reference": _judge_heads,
        "accuracy.drop": _judge_accuracy,
        "readout.drop": _judge_readout,
    }
    if case.limit.key not in judges:
        raise SpecificationError(
            f"{case.spec.where(case.limit.line)}: unknown limit {case.limit.key!r}: "
            f"{nearest(case.limit.key, tuple(judges))}"
        )
    if case.count < FEWEST_PAIRS:
        return _abstain(
            f"only {case.count} prompt pairs were measured ({case.data.dropped} dropped): at least "
            f"{FEWEST_PAIRS} are needed for any interval: give more pairs"
        )
    reason = _base_cannot(case) or _no_circuit(case)
    return judges[case.limit.key](case) if reason is None else _abstain(reason)


def _no_circuit(case: _Case) -> str | None:
    """Why DCV cannot be judged, where `circuit: auto` found none."""
    if not case.spec.auto or case.spec.heads or not case.limit.key.startswith("dcv."):
        return None
    return f"circuit: auto found no circuit to judge: {'; '.join(case.data.notes)}"


def _compare(
    case: _Case, what: str, estimate: Estimate, more: Callable[[], int | None]
) -> _Decision:
    """The rule itself, for one estimate; `more` says how many pairs would decide."""
    limit = case.limit.maximum
    if estimate.high <= limit:
        reason = f"{what} {_interval(estimate)} on {case.count} pairs is within {_limit(limit)}"
        return _Decision(Outcome.PASS, estimate, reason)
    if estimate.low > limit:
        reason = f"{what} {_interval(estimate)} on {case.count} pairs is beyond {_limit(limit)}"
        return _Decision(Outcome.FAIL, estimate, reason)
    return _abstain(
        f"undecided at {case.count} pairs: {what} {_interval(estimate)} holds {_limit(limit)}; "
        f"{_wanted(more())}",
        estimate,
    )


def _judge_circuit(case: _Case) -> _Decision:
    importance = case.mean(case.circuit_importance())
    if not statistics.measurable(importance):
        return _abstain(_no_importance(case, importance))
    estimate = case.ratio(case.circuit_damage(), case.circuit_importance())
    return _compare(
        case,
        _measure(case, "circuit"),
        estimate,
        lambda: statistics.pairs_to_decide(estimate, case.limit.maximum),
    )


def _judge_all(case: _Case) -> _Decision:
    damage, whole = case.all_heads()
    importance = case.mean(whole)
    if not statistics.measurable(importance):
        return _abstain(
            f"what all heads together are worth {_interval(importance)} on {case.count} pairs "
            "cannot be told from 0: check the prompts, or give more pairs"
        )
    estimate = case.ratio(damage, whole)
    return _compare(
        case,
        "DCV of all heads",
        estimate,
        lambda: statistics.pairs_to_decide(estimate, case.limit.maximum),
    )


def _judge_accuracy(case: _Case) -> _Decision:
    data, confidence = case.data, case.spec.confidence
    if np.array_equal(data.base_readout, data.tuned_readout) and np.array_equal(
        data.base_correct, data.tuned_correct
    ):
        # Equal real numbers on every pair are no sample of 0s and 1s: the models compute the same.
        same = Estimate(0.0, 0.0, 0.0, round(2 * confidence - 1, 12), case.count)
        reason = f"every readout equals the base's, bit for bit, on {case.count} pairs"
        return _Decision(Outcome.PASS, same, reason)
    estimate = statistics.accuracy_drop(
        data.base_correct, data.tuned_correct, confidence=confidence
    )
    return _compare(
        case,
        f"accuracy {data.base_correct.mean():.1%} to {data.tuned_correct.mean():.1%}, a drop of",
        estimate,
        lambda: statistics.pairs_to_decide_drop(
            data.base_correct, data.tuned_correct, case.limit.maximum, confidence=confidence
        ),
    )


def _judge_readout(case: _Case) -> _Decision:
    base = case.mean(case.data.base_readout)
    if not statistics.measurable(base):
        return _abstain(
            f"the base's mean {case.spec.readout} {_interval(base)} cannot be told from 0, so a "
            "relative drop means nothing: gate accuracy.drop or dcv.circuit instead"
        )
    scale = np.sign(base.value) * case.data.base_readout
    estimate = case.ratio(case.data.base_readout - case.data.tuned_readout, scale)
    decision = _compare(
        case,
        f"relative drop of {case.spec.readout}",
        estimate,
        lambda: statistics.pairs_to_decide(estimate, case.limit.maximum),
    )
    if case.spec.readout == "logprob" and abs(base.value) < SATURATED:
        note = (
            f"the base's mean logprob is {base.value:.3g}, nearly certain: a relative drop of it "
            "says little"
        )
        return replace(decision, notes=(note,))
    return decision


# --- families of heads -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judged:
    """One head: what is held to the limit (its DCV, or where it has none its damage as a share of
    the circuit's importance)."""

    head: Member
    importance: Estimate
    held: Estimate
    corrected_low: float
    measurable: bool
    own: Estimate | None


def _judge_family(case: _Case) -> list[_Judged]:
    damage, importance = case.head_arrays()
    shown = case.means(importance)
    measurable = np.array([statistics.measurable(estimate) for estimate in shown])
    scale = importance
    if not measurable.all():
        scale = np.where(measurable[:, None], importance, case.circuit_importance()[None])
    family = statistics.ratios_of_means(
        damage,
        scale,
        confidence=case.spec.confidence,
        seed=case.seed,
        clusters=case.clusters,
    )
    rows = zip(
        case.heads,
        shown,
        family.estimates,
        family.corrected_low,
        measurable.tolist(),
        _own_damage(case, scale),
        strict=True,
    )
    judged = [_Judged(*row) for row in rows]
    return sorted(judged, key=lambda one: (not one.measurable, -one.held.value, one.head))


def _own_damage(case: _Case, scale: FloatArray) -> Sequence[Estimate | None]:
    """Each head's own damage over `scale`; None where it was not measured, and for differences."""
    own = case.data.head_own_damage
    having = [place for place, head in enumerate(case.heads) if head in own]
    found: list[Estimate | None] = [None] * len(case.heads)
    if case.limit.needs_reference or not having:
        return found
    estimates = statistics.ratios_of_means(
        np.stack([own[case.heads[place]] for place in having]),
        scale[having],
        confidence=case.spec.confidence,
        seed=case.seed,
        clusters=case.clusters,
    ).estimates
    for place, estimate in zip(having, estimates, strict=True):
        found[place] = estimate
    return found


def _worst_first(case: _Case, judged: Sequence[_Judged]) -> tuple[HeadEvidence, ...]:
    """Heads whose damage is established and mostly their own lead, for that is where to look: those
    after them in the model inherit it, and may read a larger DCV for it. The rest stand by DCV."""

    def place(one: _Judged) -> tuple[bool, float]:
        if not one.measurable or one.own is None:
            return True, 0.0
        mostly_own = one.own.low > 0 and 2 * one.own.value >= one.held.value
        return not mostly_own, -one.own.value if mostly_own else 0.0

    return tuple(_evidence(case, one) for one in sorted(judged, key=place))


def _judge_heads(case: _Case) -> _Decision:
    importance = case.mean(case.circuit_importance())
    if not statistics.measurable(importance):
        return _abstain(_no_importance(case, importance))
    judged = _judge_family(case)
    heads = _worst_first(case, judged)
    if not any(one.measurable for one in judged):
        return _abstain(
            f"no head of {_names(judged)} has an importance that {case.count} pairs can tell from "
            "0: give more pairs, or gate dcv.circuit",
            heads=heads,
        )
    unmeasured = [one for one in judged if not one.measurable]
    notes = (
        (
            f"no DCV for {_names(unmeasured)}: importance cannot be told from 0; the damage they do"
            " was held to the limit as a share of the circuit's importance",
        )
        if unmeasured
        else ()
    )
    return replace(_decide_family(case, judged), heads=heads, notes=notes)


def _decide_family(case: _Case, judged: Sequence[_Judged]) -> _Decision:
    limit, count = case.limit.maximum, len(judged)
    beyond = [one for one in judged if one.corrected_low > limit]
    if beyond:
        first = beyond[0]
        also = f"; so are {_names(beyond[1:])}" if len(beyond) > 1 else ""
        reason = (
            f"{_measure(case, first)} {_interval(first.held)} on {case.count} pairs is beyond "
            f"{_limit(limit)} (lower bound corrected for {count} heads "
            f"{_number(first.corrected_low)}){also}"
        )
        return _Decision(Outcome.FAIL, first.held, reason, head=str(first.head))
    undecided = [one for one in judged if one.held.high > limit]
    if not undecided:
        first = max(judged, key=lambda one: (one.held.high, one.measurable))
        reason = (
            f"every head is within {_limit(limit)} on {case.count} pairs; nearest to it is "
            f"{_measure(case, first)} {_interval(first.held)}"
        )
        return _Decision(Outcome.PASS, first.held, reason, head=str(first.head))
    first = undecided[0]
    wanted = [_family_pairs(one, limit) for one in undecided]
    most = None if None in wanted else max(one for one in wanted if one is not None)
    others = f" (and {_names(undecided[1:])})" if len(undecided) > 1 else ""
    reason = (
        f"undecided at {case.count} pairs: {_measure(case, first)} {_interval(first.held)}, lower "
        f"bound corrected for {count} heads {_number(first.corrected_low)}, holds "
        f"{_limit(limit)}{others}; {_wanted(most)}"
    )
    return _abstain(reason, first.held, head=str(first.head))


def _family_pairs(one: _Judged, limit: float) -> int | None:
    return statistics.pairs_to_decide(replace(one.held, low=one.corrected_low), limit)


def _evidence(case: _Case, one: _Judged) -> HeadEvidence:
    note = "tuned minus reference" if case.limit.needs_reference else ""
    if one.measurable:
        return HeadEvidence(str(one.head), one.importance, one.held, note, one.own)
    return HeadEvidence(
        str(one.head),
        one.importance,
        None,
        f"importance cannot be told from 0; its damage is {_interval(one.held)} of the circuit's "
        f"importance{', ' + note if note else ''}",
    )


def _head_evidence(case: _Case) -> tuple[HeadEvidence, ...]:
    """The heads beside a limit that is not about them, where they were measured; never a reason
    to stop."""
    data = case.data
    sources = [data.head_importance, data.head_damage]
    if case.limit.needs_reference:
        sources.append(data.reference_head_damage)
    if case.count < FEWEST_PAIRS or not case.heads or data.circuit_importance is None:
        return ()
    if any(head not in source for source in sources for head in case.heads):
        return ()
    if not statistics.measurable(case.mean(data.circuit_importance)):
        return ()
    return _worst_first(case, _judge_family(case))


# --- evidence and words ----------------------------------------------------------------------


def _worst_pairs(case: _Case, worst: int) -> tuple[PairEvidence, ...]:
    """The pairs that lost most, first: by the circuit's damage for a DCV, else by the behaviour.
    Pairs that lost nothing are no evidence."""
    data = case.data
    behaviour = data.base_readout - data.tuned_readout
    damage = behaviour if data.circuit_damage is None else data.circuit_damage
    loss = damage if case.limit.key.startswith("dcv.") else behaviour
    order = [int(position) for position in np.argsort(-loss, kind="stable") if loss[position] > 0]
    return tuple(
        PairEvidence(
            clean=data.pairs[position].clean,
            counterfactual=data.pairs[position].counterfactual,
            answer=data.pairs[position].answer,
            distractor=data.pairs[position].distractor,
            base=float(data.base_readout[position]),
            patched=float(data.base_readout[position] - damage[position]),
            tuned=float(data.tuned_readout[position]),
        )
        for position in order[:worst]
    )


def _notes(case: _Case) -> tuple[str, ...]:
    data = case.data
    notes = list(data.notes)
    if data.dropped:
        notes.append(f"{data.dropped} of {data.dropped + case.count} pairs were dropped")
    templates = {pair.template for pair in data.pairs if pair.template}
    if templates and case.clusters is None:
        notes.append(
            f"the pairs come from {len(templates)} template{'s' * (len(templates) > 1)}: the "
            "interval speaks of no others"
        )
    if data.circuit_importance is not None and case.limit.key.startswith("dcv."):
        importance, readout = data.circuit_importance.mean(), data.base_readout.mean()
        if importance < 0:
            notes.append(
                "patching the circuit from the counterfactual RAISES the readout: as a whole it "
                "works against the capability"
            )
        elif importance < SMALL_CIRCUIT * abs(readout):
            notes.append(
                f"the circuit carries {importance / abs(readout):.1%} of the readout: most of the "
                "capability lies elsewhere"
            )
    return tuple(notes)


def _no_importance(case: _Case, importance: Estimate) -> str:
    return (
        f"the circuit's importance {_interval(importance)} on {case.count} pairs cannot be told "
        "from 0, so there is nothing to lose: check its heads, or give more pairs"
    )


def _measure(case: _Case, subject: _Judged | str) -> str:
    over = " over the reference" if case.limit.needs_reference else ""
    if isinstance(subject, str):
        return f"DCV of the circuit{over}"
    if subject.measurable:
        return f"DCV of {subject.head}{over}"
    return f"damage of {subject.head}{over}, as a share of the circuit's importance,"


def _names(judged: Sequence[_Judged]) -> str:
    return ", ".join(str(one.head) for one in judged)


def _number(value: float) -> str:
    # + 0.0: a bound that rounds to zero from below is not written -0.
    return f"{round(value, 4) + 0.0:.4g}" if abs(value) < 1 else f"{value:.3g}"


def _interval(estimate: Estimate) -> str:
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _limit(limit: float) -> str:
    return f"the limit {limit:g}"


def _wanted(pairs: int | None) -> str:
    if pairs is None:
        return "it lies too near the limit for any number of pairs to be named"
    return f"about {pairs} pairs would decide if the value stays"
