"""The rule: pass where the upper bound is within the limit, fail where the lower one is beyond it,
else abstain. [light]"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forgetguard.gate import power, wording
from forgetguard.gate.case import Case, Held
from forgetguard.gate.verdict import Estimate, HeadEvidence, Outcome


@dataclass(frozen=True, slots=True)
class Decision:
    """What a limit came to, with what only this limit knows of the evidence."""

    outcome: Outcome
    estimate: Estimate | None
    reason: str
    heads: tuple[HeadEvidence, ...] = ()
    notes: tuple[str, ...] = ()
    head: str = ""
    detectable: float | None = None


def abstain(reason: str, estimate: Estimate | None = None) -> Decision:
    """Not measurable, or not decided."""
    return Decision(Outcome.ABSTAIN, estimate, reason)


def compare(
    case: Case,
    what: str,
    held: Held,
    *,
    detectable: float | None,
    more: Callable[[], int | None],
) -> Decision:
    """The rule for one estimate; `what` names it, and `more` says how many pairs would decide."""
    maximum, estimate = case.limit.maximum, held.estimate
    outcome = ruled(held, maximum)
    shown = f"{what} {wording.interval(estimate)}"
    corrected = wording.corrected(held.low, case.family)
    if outcome is Outcome.PASS:
        reason = f"{shown} on {case.count} pairs is within {wording.limit(maximum)}"
    elif outcome is Outcome.FAIL:
        reason = f"{shown} on {case.count} pairs is beyond {wording.limit(maximum)}"
        reason += f" ({corrected})" * bool(corrected)
    else:
        reason = (
            f"undecided at {case.count} pairs: {shown}{f', {corrected},' * bool(corrected)} holds "
            f"{wording.limit(maximum)}; {wording.wanted(more())}"
        )
    return Decision(outcome, estimate, reason, detectable=detectable)


def ruled(held: Held, maximum: float) -> Outcome:
    """The outcome that the bounds give."""
    if held.estimate.high <= maximum:
        return Outcome.PASS
    return Outcome.FAIL if held.low > maximum else Outcome.ABSTAIN


def detectable(case: Case, held: Held) -> float | None:
    """The smallest true value that this limit fails with probability 0.80, from the width that the
    interval has now; None where there is no width to go by."""
    if held.estimate.low == held.estimate.high:
        return None
    maximum, level = case.limit.maximum, case.levels.failing
    return power.detectable(held.estimate.value, held.low, maximum, level)
