"""Numbers, intervals and limits as they stand in the reason of a verdict. [light]"""

from __future__ import annotations

from collections.abc import Iterable

from forgetguard.gate.verdict import Estimate


def number(value: float) -> str:
    """Four decimals below 1, else three significant digits."""
    # + 0.0: a bound that rounds to zero from below is not written -0.
    return f"{round(value, 4) + 0.0:.4g}" if abs(value) < 1 else f"{value:.3g}"


def interval(estimate: Estimate) -> str:
    """`0.31 [0.24, 0.39]`."""
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def limit(maximum: float) -> str:
    """`the limit 0.1`."""
    return f"the limit {maximum:g}"


def share(value: float) -> str:
    """`10 %`."""
    return f"{100 * value:.3g} %"


def dcv(importance: Estimate) -> str:
    """`DCV`; of what works against the capability, held in both directions, `|DCV|`."""
    return "|DCV|" if importance.value < 0 else "DCV"


def names(members: Iterable[object]) -> str:
    """`L0H4, L2H1`."""
    return ", ".join(map(str, members))


def wanted(pairs: int | None) -> str:
    """How many pairs would decide."""
    if pairs is None:
        return "it lies too near the limit for any number of pairs to be named"
    return f"about {pairs} pairs would decide if the value stays"


def corrected(low: float, limits: int, heads: int = 0) -> str:
    """The lower bound on which a limit fails, where it is corrected for how many are held to
    theirs; else nothing."""
    counted = [f"{heads} heads"] * (heads > 0) + [f"{limits} limits"] * (limits > 1)
    return f"lower bound corrected for {' and '.join(counted)} {number(low)}" if counted else ""
