"""What a gate makes of damage over draws of pairs, and from which dose on it sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgetguard.gate import rule
from forgetguard.gate.declaration import GateSpec
from forgetguard.gate.resampling import cluster_codes
from forgetguard.gate.verdict import Outcome
from forgetguard.measures.samples import Samples

POWER = 0.80
ANY = "any limit"  # a run fails when one of its limits does
FLAT = 0.05  # of the whole change: what a curve moves where it is called saturated


@dataclass(frozen=True, slots=True)
class Shares:
    """How often, over draws of pairs, a limit came to each outcome; they sum to 1."""

    passed: float
    failed: float
    abstained: float


@dataclass(frozen=True, slots=True)
class Detected:
    """The smallest planted dose from which on a limit fails in `POWER` of the draws, and the dose
    before it, at which it does not; None where there is none. value, value_below: what the limit
    bounds at the two: the smallest value that is seen lies between them."""

    dose: float | None
    below: float | None = None
    value: float | None = None
    value_below: float | None = None


def redrawn(data: Samples, rng: np.random.Generator) -> Samples:
    """As many units drawn with replacement, all arrays with them; whole templates where the gate
    resamples templates, each draw of one a template of its own."""
    codes = cluster_codes([unit.template for unit in data.units])
    if codes is None:
        codes = np.arange(data.count)
    drawn = rng.integers(0, codes.max() + 1, size=codes.max() + 1)
    index, names = [], []
    for copy, code in enumerate(drawn.tolist()):
        for place in np.flatnonzero(codes == code).tolist():
            index.append(place)
            names.append(copy)
    found = data.at(index)
    units = tuple(
        replace(unit, template=f"{unit.template}#{copy}") if unit.template else unit
        for unit, copy in zip(found.units, names, strict=True)
    )
    return replace(found, units=units)


def shares(
    spec: GateSpec,
    data: Samples,
    draws: int,
    *,
    seed: int = 0,
    family: int = 1,
    report: Callable[[int], None] = lambda _: None,
) -> dict[str, Shares]:
    """Each limit's outcomes over `draws` draws of the pairs, and those of `ANY`: failed where one
    limit fails, passed where all do.

    The draws are with replacement from the pairs that were measured, so they tell how the verdict
    varies with its pairs as far as these pairs can tell. The same `seed` draws the same pairs.

    Raises:
        SamplesError: as `rule.judge`.
    """
    rng = np.random.default_rng((seed, draws))
    counted = {key: dict.fromkeys(Outcome, 0) for key in (*_keys(spec), ANY)}
    for draw in range(draws):
        report(draw)
        chosen = redrawn(data, rng)
        outcomes = {
            limit.key: rule.judge(spec, limit, chosen, seed=seed, family=family).outcome
            for limit in spec.limits
        }
        for key, outcome in {**outcomes, ANY: _together(list(outcomes.values()))}.items():
            counted[key][outcome] += 1
    return {
        key: Shares(*(of[one] / draws for one in (Outcome.PASS, Outcome.FAIL, Outcome.ABSTAIN)))
        for key, of in counted.items()
    }


def _keys(spec: GateSpec) -> tuple[str, ...]:
    return tuple(limit.key for limit in spec.limits)


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    if Outcome.FAIL in outcomes:
        return Outcome.FAIL
    return Outcome.ABSTAIN if Outcome.ABSTAIN in outcomes else Outcome.PASS


def detected(
    doses: Sequence[float], failed: Sequence[float], values: Sequence[float | None]
) -> Detected:
    """From which dose on a limit fails in `POWER` of the draws, and stays there.

    Args:
        doses: increasing. failed: the share of draws that fail at each. values: what the limit
            bounds at each; None where it was not measurable.
    """
    seen = [share >= POWER for share in failed]
    first = next((i for i in range(len(seen)) if all(seen[i:])), None)
    if first is None:
        return Detected(None, doses[-1], None, values[-1])
    if first == 0:
        return Detected(doses[0], None, values[0])
    return Detected(doses[first], doses[first - 1], values[first], values[first - 1])


def saturates(doses: Sequence[float], values: Sequence[float]) -> float | None:
    """The smallest dose from which on `values` stay within `FLAT` of the whole change of their last
    one: more damage is not seen any more. None where only the last dose, or nothing, is."""
    whole = max(values) - min(values)
    if whole <= 0:
        return None
    near = [abs(value - values[-1]) <= FLAT * whole for value in values]
    first = next(i for i in range(len(near)) if all(near[i:]))
    return doses[first] if first < len(doses) - 1 else None


def moves(doses: Sequence[float], values: Sequence[float], least: float) -> float | None:
    """The smallest dose at which `values` differ from their first by `least` or more."""
    return next(
        (d for d, value in zip(doses, values, strict=True) if abs(value - values[0]) >= least), None
    )


def by_limit(points: Sequence[Mapping[str, Shares]], key: str) -> list[float]:
    """The shares of draws that fail, dose by dose."""
    return [point[key].failed for point in points]
