"""From per-pair numbers to a verdict on one declared limit, as a pure function. [light]

Pass: the upper bound is within the limit. Fail: the lower bound is beyond it. Otherwise abstain.

What is not judged at all, and so abstains: fewer than `FEWEST_PAIRS` pairs (no interval is worth
its name there); a capability the base cannot do; a circuit whose importance cannot be told from
zero. A saturated readout does not pass: what it shows is real, so a fail stands, but what it does
not show may be lost all the same. Numbers that are not finite are errors, never verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from forgetguard.capabilities.encoding import FEWEST_PAIRS
from forgetguard.errors import SpecificationError
from forgetguard.gate import accuracy, evidence, power, ruling, studentised, wording
from forgetguard.gate.case import Case, Held
from forgetguard.gate.declaration import CircuitSpec, Limit
from forgetguard.gate.head_family import judge_heads
from forgetguard.gate.measurement import Control, Measurement
from forgetguard.gate.over_baseline import beside_baseline
from forgetguard.gate.ruling import Decision
from forgetguard.gate.verdict import Estimate, Outcome, Verdict
from forgetguard.gate.yaml_lines import nearest

__all__ = ["Control", "Measurement", "judge"]

LEAST_BASE_ACCURACY = 0.5  # below it the base gets more prompts wrong than right
# Of a small loss of the answer's logit, the share that its log-probability must show: with p the
# answer's probability the slope is 1 - p, so at 0.1 (p = 0.9) nine tenths stay out of sight. What
# reads a DCV of 0.25 in logits (half of the margin lost) reads 0.08 there, and 0.014 at p = 0.993.
LEAST_ROOM = 0.1


def judge(
    spec: CircuitSpec,
    limit: Limit,
    measurement: Measurement,
    *,
    seed: int = 0,
    worst: int = 5,
    family: int = 1,
) -> Verdict:
    """Decide one limit of one circuit.

    The same data and seed give the same verdict, whatever the order of pairs, heads, limits or
    circuits: pairs and heads are put into an order of their own, and the draws depend on the run's
    seed and the circuit's name only. Raising a limit never turns a pass into anything else. A
    larger family makes fails rarer and leaves passes as they are.

    Args:
        spec: the circuit; its `confidence` is the one-sided level.
        limit: one of its limits.
        measurement: what was measured on its pairs; with `looks`, those at one of the looks.
        seed: the run's.
        worst: how many prompt pairs to show at most.
        family: the number of limits of the run, which share its false-alarm rate.

    Raises:
        MeasurementError: a value is not finite, shapes differ, or what the limit needs is missing.
        SpecificationError: the limit compares with a reference and none was measured, or `family`
            is below 1.
    """
    if family < 1:
        raise SpecificationError(f"the limits of a run are at least 1, got a family of {family}")
    case = Case.of(spec, limit, measurement, seed=seed, family=family)
    decision = _decide(case)
    return Verdict(
        circuit=spec.name,
        capability=spec.capability,
        limit=limit.key,
        bound=limit.maximum,
        outcome=decision.outcome,
        estimate=decision.estimate,
        reason=decision.reason,
        worst_heads=decision.heads or evidence.heads_beside(case, FEWEST_PAIRS),
        worst_pairs=evidence.worst_pairs(case, worst),
        file="" if spec.path is None else str(spec.path),
        line=limit.line,
        notes=evidence.notes(case) + beside_baseline(case) + decision.notes,
        head=decision.head,
        family=family,
        detectable=decision.detectable,
        budget=case.data.looks[-1] if case.data.looks else None,
        controls=evidence.controls(case),
    )


def _decide(case: Case) -> Decision:
    judges: dict[str, Callable[[Case], Decision]] = {
        "dcv.circuit": _judge_circuit,
        "dcv.circuit.over_reference": _judge_circuit,
        "dcv.all": _judge_all,
        "dcv.head": _judge_heads,
        "dcv.head.over_reference": _judge_heads,
        "dcv.circuit.over_baseline": _judge_circuit,
        "dcv.head.over_baseline": _judge_heads,
        "accuracy.drop.over_baseline": _judge_accuracy,
        "accuracy.drop": _judge_accuracy,
        "readout.drop": _judge_readout,
    }
    if case.limit.key not in judges:
        raise SpecificationError(
            f"{case.spec.where(case.limit.line)}: unknown limit {case.limit.key!r}: "
            f"{nearest(case.limit.key, tuple(judges))}"
        )
    if case.count < FEWEST_PAIRS:
        return ruling.abstain(
            f"only {case.count} prompt pairs were measured ({case.data.dropped} dropped): at least "
            f"{FEWEST_PAIRS} are needed for any interval: give more pairs"
        )
    reason = _base_cannot(case) or _no_circuit(case)
    if reason is not None:
        return ruling.abstain(reason)
    return _unless_saturated(case, judges[case.limit.key](case))


# --- what cannot be judged -------------------------------------------------------------------


def _base_cannot(case: Case) -> str | None:
    """Why the base does not do the capability, if so: then there is nothing to lose."""
    right = float(case.data.base_correct.mean())
    if right < LEAST_BASE_ACCURACY:
        return (
            f"THE BASE CANNOT DO {case.spec.capability!r}: it is right on {right:.0%} of "
            f"{case.count} pairs, so nothing can be said about losing it: check the prompts, the "
            "chat template and the base"
        )
    if case.spec.readout == "logit_diff":
        readout = case.mean(case.data.base_readout)
        if readout.low <= 0:
            return (
                f"THE BASE CANNOT DO {case.spec.capability!r}: its mean logit difference "
                f"{wording.interval(readout)} on {case.count} pairs is not above 0: check the "
                "prompts and which answer is the distractor"
            )
    return None


def _no_circuit(case: Case) -> str | None:
    """Why DCV cannot be judged, where `circuit: auto` found none."""
    if not case.spec.auto or case.spec.heads or not case.limit.key.startswith("dcv."):
        return None
    return f"circuit: auto found no circuit to judge: {'; '.join(case.data.notes)}"


def _unless_saturated(case: Case, decision: Decision) -> Decision:
    """The decision, but no pass on a readout that leaves no room to see a loss. It depends on the
    base alone."""
    reads_accuracy = case.limit.key.startswith("accuracy.drop")
    if case.spec.readout != "logprob" or reads_accuracy or decision.outcome is Outcome.FAIL:
        return decision
    room = float(np.mean(-np.expm1(case.data.base_readout)))
    if room >= LEAST_ROOM:
        return decision
    reason = (
        f"THE READOUT IS SATURATED: the base gives the answer a mean probability of "
        f"{1 - room:.3g} on {case.count} pairs, so its logprob would hardly show a loss: use "
        f"readout: logit_diff, or harder prompts ({decision.reason})"
    )
    return replace(decision, outcome=Outcome.ABSTAIN, reason=reason, detectable=None)


def _no_importance(case: Case, importance: Estimate) -> Decision:
    return ruling.abstain(
        f"the circuit's importance {wording.interval(importance)} on {case.count} pairs cannot be "
        "told from 0, so there is nothing to lose: check its heads, or give more pairs"
    )


# --- one judge a measure ---------------------------------------------------------------------


def _compare(case: Case, what: str, held: Held) -> Decision:
    return ruling.compare(
        case,
        what,
        held,
        detectable=ruling.detectable(case, held),
        more=lambda: power.pairs_to_decide(
            replace(held.estimate, low=held.low), case.limit.maximum
        ),
    )


def _judge_circuit(case: Case) -> Decision:
    importance = case.mean(case.circuit_importance())
    if not studentised.measurable(importance):
        return _no_importance(case, importance)
    over = f" over the {case.limit.over}" if case.limit.over else ""
    damage, scale = case.circuit_damage()[None], case.circuit_importance()[None]
    (held,) = case.vulnerabilities(damage, scale)
    return _compare(case, f"{wording.dcv(importance)} of the circuit{over}", held)


def _judge_heads(case: Case) -> Decision:
    importance = case.mean(case.circuit_importance())
    if not studentised.measurable(importance):
        return _no_importance(case, importance)
    return judge_heads(case)


def _judge_all(case: Case) -> Decision:
    damage, whole = case.all_heads()
    importance = case.mean(whole)
    if not studentised.measurable(importance):
        return ruling.abstain(
            f"what all heads together are worth {wording.interval(importance)} on {case.count} "
            "pairs cannot be told from 0: check the prompts, or give more pairs"
        )
    (held,) = case.vulnerabilities(damage[None], whole[None])
    return _compare(case, f"{wording.dcv(importance)} of all heads", held)


def _judge_accuracy(case: Case) -> Decision:
    data, levels = case.data, case.levels
    then, whose = data.base_correct, "base"
    before = data.base_readout
    if case.limit.needs_baseline:
        then, whose = case.recorded().tuned_correct, "recorded checkpoint"
        before = case.recorded().tuned_readout
    if np.array_equal(before, data.tuned_readout) and np.array_equal(then, data.tuned_correct):
        # Equal real numbers on every pair are no sample of 0s and 1s: the models compute the same.
        same = Estimate(0.0, 0.0, 0.0, studentised.coverage(1 - levels.passing), case.count)
        reason = f"every readout equals the {whose}'s, bit for bit, on {case.count} pairs"
        return Decision(Outcome.PASS, same, reason)
    held = case.accuracy_drop(then, data.tuned_correct)
    what = f"accuracy {then.mean():.1%} to {data.tuned_correct.mean():.1%}, a drop of"
    lost, won, pairs = accuracy.changed_sides(then, data.tuned_correct)
    if case.has_templates and lost + won > 0:
        return _compare(case, what, held)  # what follows takes pairs for independent
    exact = power.detectable_drop(lost, won, pairs, case.limit.maximum, levels.failing)
    return ruling.compare(
        case,
        what,
        held,
        detectable=exact or ruling.detectable(case, held),
        more=lambda: power.pairs_to_decide_drop(
            then,
            data.tuned_correct,
            case.limit.maximum,
            confidence=1 - levels.passing,
            fail_confidence=1 - levels.failing,
        ),
    )


def _judge_readout(case: Case) -> Decision:
    base = case.mean(case.data.base_readout)
    if not studentised.measurable(base):
        return ruling.abstain(
            f"the base's mean {case.spec.readout} {wording.interval(base)} cannot be told from 0, "
            "so a relative drop means nothing: gate accuracy.drop or dcv.circuit instead"
        )
    scale = np.sign(base.value) * case.data.base_readout
    held = case.ratio(case.data.base_readout - case.data.tuned_readout, scale)
    return _compare(case, f"relative drop of {case.spec.readout}", held)
